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
  device.onProps?.((request) => {
    tell('property_set', { request })
    // The SDK leaves the answer to the author.
    if (given.answers !== false) {
      device.publish(`/sys/${given.config.productKey}/${given.config.deviceName}/thing/service/property/set_reply`, JSON.stringify({ id: request.id, code: 200, data: {} }))
    }
  })
  device.onShadow?.((shadow) => tell('shadow', { shadow }))
  for (const [name, way] of Object.entries(given.services ?? {})) {
    device.onService(name, (request, reply) => {
      tell('service', { name, request })
      reply({ id: request.id, code: 200, data: { opened: request.params?.angle } }, way)
    })
  }
  const client = device._mqttClient ?? device._client ?? device.mqttClient
  client?.on('packetreceive', (packet) => {
    if (packet.cmd === 'suback') tell('suback', { granted: packet.granted, number: (granted += 1) })
  })
  await commands({
    post_properties: ({ properties }) => device.postProps(properties, (answer) => tell('property_reply', { answer })),
    post_event: ({ name, params }) => device.postEvent(name, params, (answer) => tell('event_reply', { answer })),
    subscribe: ({ topic, qos }) => device.subscribe(topic, { qos }, () => tell('subscribed')),
    publish: ({ topic, payload, qos }) => device.publish(topic, payload, { qos }, () => tell('published')),
    post_shadow: ({ reported }) => device.postShadow(reported),
    get_shadow: () => device.getShadow(),
    delete_shadow: ({ keys }) => device.deleteShadow(keys),
    end: () => device.end(true, () => tell('ended')),
  })
}
