// An application of Sensoro's push service: MQTT.js of either generation, used as the vendor's sample does.

import { commands, given, require, tell } from './told.mjs'

const mqtt = require(given.package)
const client = mqtt.connect(given.url, {
  username: given.username,
  password: given.password,
  clientId: given.client_id,
  reconnectPeriod: given.reconnect_ms ?? 10_000,
  ...(given.protocol_version ? { protocolVersion: given.protocol_version } : {}),
  ...(given.protocol_version === 3 ? { protocolId: 'MQIsdp' } : {}),
})
client.on('connect', () => {
  tell('connect')
  for (const topic of given.topics ?? []) {
    client.subscribe(topic, { qos: given.qos ?? 1 }, (error, grants) => {
      tell('subscribed', { topic, error: error ? `${error.message}` : null, granted: (grants ?? []).map((grant) => grant.qos) })
    })
  }
})
// What the vendor's sample prints.
client.on('error', (error) => tell('error', { text: error.message }))
client.on('close', () => tell('close'))
client.on('message', (topic, payload, packet) => {
  const record = { topic, payload: payload.toString(), qos: packet.qos }
  try {
    const parsed = JSON.parse(record.payload)
    if (parsed.encryptData !== undefined && given.app_key) {
      const Crypt = require('wechat-crypto')
      record.decrypted = new Crypt(given.password, given.app_key, given.username).decrypt(parsed.encryptData)
    }
  } catch (error) {
    record.problem = `${error.message}`
  }
  tell('message', record)
})

await commands({
  publish: ({ topic, payload, qos }) => client.publish(topic, payload, { qos }, (error) => tell('published', { error: error ? `${error.message}` : null })),
  end: () => client.end(true, () => tell('ended')),
})
