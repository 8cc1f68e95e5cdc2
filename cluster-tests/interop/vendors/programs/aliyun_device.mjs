// A device with alibabacloud-iot-device-sdk or aliyun-iot-device-sdk, whichever `package` says.

import { commands, given, require, tell } from './told.mjs'

const sdk = require(given.package)

if (given.register) {
  // Over HTTPS; the authority is NODE_EXTRA_CA_CERTS.
  sdk.register(given.register, (answer) => tell('registered', { answer: answer?.message && !answer.code ? { error: answer.message } : answer }))
} else {
  const device = sdk.device(given.config)
  // Some events come with their arguments, some with an array of them.
  const first = (argument) => (Array.isArray(argument) ? argument[0] : argument)
  let granted = 0
  device.on('connect', (connack) => tell('connect', { session: first(connack)?.sessionPresent ?? null }))
  device.on('error', (error) => tell('error', { text: `${first(error)}` }))
  device.on('close', () => tell('close'))
  device.on('message', (topic, payload) => tell('message', { topic, payload: payload.toString() }))
  const client = device._mqttClient ?? device._client ?? device.mqttClient
  client?.on('packetreceive', (packet) => {
    if (packet.cmd === 'suback') tell('suback', { granted: packet.granted, number: (granted += 1) })
  })
  await commands({
    post_properties: ({ properties }) => device.postProps(properties, (answer) => tell('property_reply', { answer })),
    post_event: ({ name, params }) => device.postEvent(name, params, (answer) => tell('event_reply', { answer })),
    subscribe: ({ topic, qos }) => device.subscribe(topic, { qos }, () => tell('subscribed')),
    publish: ({ topic, payload, qos }) => device.publish(topic, payload, { qos }, () => tell('published')),
    end: () => device.end(true, () => tell('ended')),
  })
}
