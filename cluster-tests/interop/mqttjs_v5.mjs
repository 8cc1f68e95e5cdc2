// MQTT 5 with MQTT.js.

import { SUITES } from './mqttjs_core.mjs'
import { check, expect, payloads, test } from './mqttjs_harness.mjs'

const V5 = SUITES.filter(({ version }) => version === 5)
const each = (count, f) => Array.from({ length: count }, (_, n) => f(n))

test(V5, 'publish properties forwarded', async (ctx) => {
  const client = await ctx.connect()
  await client.subscribe(ctx.topic(), { qos: 1 })
  const properties = {
    payloadFormatIndicator: true,
    contentType: 'text/plain',
    responseTopic: ctx.topic('reply'),
    correlationData: Buffer.from([0, 255, 1]),
    userProperties: { b: ['1', '2'], a: '3' },
  }
  await client.publish(ctx.topic(), 'x', { qos: 1, properties })
  const got = (await client.takeOne()).properties
  for (const name of ['payloadFormatIndicator', 'contentType', 'responseTopic', 'correlationData']) {
    expect(got[name], properties[name], name)
  }
  // MQTT.js keeps user properties in an object: the values of one name are in the order they came in.
  expect(Object.entries({ ...got.userProperties }), Object.entries(properties.userProperties), 'user properties')
})

test(V5, 'request and response', async (ctx) => {
  const server = await ctx.connect('srv')
  await server.subscribe(ctx.topic('request'), { qos: 1 })
  const requester = await ctx.connect('req')
  await requester.subscribe(ctx.topic('reply'), { qos: 1 })
  const correlationData = Buffer.from('id-1')
  await requester.publish(ctx.topic('request'), 'ping', {
    qos: 1,
    properties: { responseTopic: ctx.topic('reply'), correlationData },
  })
  const request = (await server.takeOne()).properties
  await server.publish(request.responseTopic, 'pong', { properties: { correlationData: request.correlationData } })
  const reply = await requester.takeOne()
  expect([reply.payload.toString(), reply.properties.correlationData.toString()], ['pong', 'id-1'], 'reply')
})

test(V5, 'message expiry', async (ctx) => {
  const first = await ctx.connect('a', { clean: false })
  await first.subscribe(ctx.topic(), { qos: 1 })
  await first.end()
  const publisher = await ctx.connect('pub')
  await publisher.publish(ctx.topic(), 'gone', { qos: 1, properties: { messageExpiryInterval: 1 } })
  await publisher.publish(ctx.topic(), 'here', { qos: 1, properties: { messageExpiryInterval: 100 } })
  await ctx.letTimePass(2500)
  const back = await ctx.connect('a', { clean: false })
  const got = await back.takeOne()
  expect(got.payload.toString(), 'here', 'the first message left')
  const remaining = got.properties?.messageExpiryInterval
  check(remaining >= 90 && remaining <= 98, `remaining time ${remaining}`)
  await back.end({ properties: { sessionExpiryInterval: 0 } })
}, 15_000)

test(V5, 'receive maximum of the client is respected', async (ctx) => {
  const subscriber = await ctx.connect('sub', { properties: { receiveMaximum: 3 } })
  await subscriber.subscribe(ctx.topic(), { qos: 1 })
  subscriber.holdAcknowledgements()
  const publisher = await ctx.connect('pub')
  for (const n of each(9, (n) => n)) await publisher.publish(ctx.topic(), `${n}`, { qos: 1 })
  for (const acknowledged of each(9, (n) => n)) {
    const wanted = Math.min(9, acknowledged + 3)
    await ctx.wait(() => subscriber.received.length >= wanted, () => `${wanted} messages, have ${subscriber.received}`)
    if (acknowledged % 4 === 0) await ctx.letTimePass(300)
    expect(subscriber.received.length, wanted, `messages sent after ${acknowledged} acknowledgements`)
    await subscriber.release()
  }
  expect(subscriber.received, each(9, (n) => `${n}`), 'messages')
})

test(V5, 'topic alias both ways', async (ctx) => {
  const subscriber = await ctx.connect('sub', { properties: { topicAliasMaximum: 3 } })
  await subscriber.subscribe(ctx.topic('#'), { qos: 1 })
  const publisher = await ctx.connect('pub', { autoUseTopicAlias: true, autoAssignTopicAlias: true })
  check(publisher.connack.properties?.topicAliasMaximum > 0, 'CONNACK allows no topic alias')
  const topics = each(60, (n) => ctx.topic(`alias/${n % 17}`))
  for (const [n, topic] of topics.entries()) await publisher.publish(topic, topic, { qos: n % 2 })
  for (const message of await subscriber.take(60)) expect(message.topic, message.payload.toString(), 'topic')
})

test(V5, 'subscription identifiers', async (ctx) => {
  const client = await ctx.connect()
  await client.subscribe(ctx.topic('a/+'), { qos: 1, properties: { subscriptionIdentifier: 7 } })
  await client.subscribe(ctx.topic('b'), { qos: 1, properties: { subscriptionIdentifier: 200_000 } })
  await client.publish(ctx.topic('a/x'), 'x', { qos: 1 })
  expect((await client.takeOne()).properties?.subscriptionIdentifier, 7, 'identifier')
  await client.publish(ctx.topic('b'), 'x', { qos: 1 })
  expect((await client.takeOne()).properties?.subscriptionIdentifier, 200_000, 'identifier')
})

test(V5, 'no-local', async (ctx) => {
  const client = await ctx.connect()
  const other = await ctx.connect('b')
  await client.subscribe(ctx.topic(), { qos: 1, nl: true })
  await client.publish(ctx.topic(), 'own', { qos: 1 })
  await other.publish(ctx.topic(), 'sentinel', { qos: 1 })
  expect(payloads(await client.until('sentinel')), [], 'own messages')
})

test(V5, 'retain as published', async (ctx) => {
  const asIs = await ctx.connect('rap')
  const plain = await ctx.connect('plain')
  await asIs.subscribe(ctx.topic(), { qos: 1, rap: true })
  await plain.subscribe(ctx.topic(), { qos: 1 })
  await plain.publish(ctx.topic(), 'x', { qos: 1, retain: true })
  expect([(await asIs.takeOne()).retain, (await plain.takeOne()).retain], [true, false], 'RETAIN with it and without')
  await plain.publish(ctx.topic(), '', { qos: 1, retain: true })
})

test(V5, 'retain handling', async (ctx) => {
  const client = await ctx.connect()
  const replays = async (name, rh) => {
    await client.subscribe(ctx.topic(name), { qos: 1, rh })
    await client.publish(ctx.topic(name), 'end', { qos: 1 })
    return (await client.until('end')).length
  }
  const wanted = { 0: [1, 1], 1: [1, 0], 2: [0, 0] }
  for (const [rh, counts] of Object.entries(wanted)) {
    await client.publish(ctx.topic(rh), 'kept', { qos: 1, retain: true })
    expect([await replays(rh, Number(rh)), await replays(rh, Number(rh))], counts, `replays at handling ${rh}`)
    await client.publish(ctx.topic(rh), '', { qos: 1, retain: true })
    await client.takeOne()
  }
})

test(V5, 'session expiry', async (ctx) => {
  const first = await ctx.connect('a', { clean: false, expiry: 1 })
  await first.subscribe(ctx.topic(), { qos: 1 })
  await first.end()
  await ctx.letTimePass(3500)
  const late = await ctx.connect('a', { clean: false, expiry: 60 })
  expect(late.connack.sessionPresent, false, 'session present after the interval')
  await late.end()
  const soon = await ctx.connect('a', { clean: false, expiry: 60 })
  expect(soon.connack.sessionPresent, true, 'session present within the interval')
  await soon.end({ properties: { sessionExpiryInterval: 0 } })
}, 15_000)

test(V5, 'will delay and will properties', async (ctx) => {
  const watcher = await ctx.connect('watch')
  await watcher.subscribe(ctx.topic('#'), { qos: 1 })
  const will = {
    topic: ctx.topic('w'),
    payload: Buffer.from('late'),
    qos: 1,
    properties: { willDelayInterval: 2, contentType: 'text/plain', userProperties: { k: 'v' } },
  }
  const dying = await ctx.connect('dying', { will, expiry: 60 })
  await dying.kill()
  await watcher.publish(ctx.topic('s'), 'sentinel', { qos: 1 })
  expect(payloads(await watcher.until('sentinel')), [], 'messages before the delay')
  const got = await watcher.takeOne()
  expect([got.payload.toString(), got.properties?.contentType], ['late', 'text/plain'], 'will')
  expect({ ...got.properties.userProperties }, { k: 'v' }, 'user properties of the will')
  await (await ctx.connect('dying')).end()
}, 15_000)

test(V5, 'disconnect with will', async (ctx) => {
  const watcher = await ctx.connect('watch')
  await watcher.subscribe(ctx.topic('w'), { qos: 1 })
  const will = { topic: ctx.topic('w'), payload: Buffer.from('on purpose'), qos: 1 }
  await (await ctx.connect('l', { will })).end({ reasonCode: 4 })
  expect(payloads(await watcher.take(1)), ['on purpose'], 'will')
})

test(V5, 'assigned client id', async (ctx) => {
  const ids = []
  for (const _ of [1, 2]) {
    const client = await ctx.connect('a', { clientId: '' })
    ids.push(client.connack.properties?.assignedClientIdentifier)
    check(ids.at(-1), 'CONNACK assigns no client id')
  }
  check(ids[0] !== ids[1], 'two clients got one id')
})

test(V5, 'reason codes', async (ctx) => {
  const client = await ctx.connect()
  await client.publish(ctx.topic(), 'x', { qos: 1 })
  expect(client.answers.puback.reasonCode, 0x10, 'PUBACK with no subscriber')
  await client.subscribe(ctx.topic(), { qos: 1 })
  await client.publish(ctx.topic(), 'x', { qos: 1 })
  expect(client.answers.puback.reasonCode ?? 0, 0, 'PUBACK with a subscriber')
  await client.unsubscribe([ctx.topic(), ctx.topic('never')])
  expect([...client.answers.unsuback.granted], [0, 0x11], 'UNSUBACK')
})

test(V5, 'maximum packet size of the client', async (ctx) => {
  const client = await ctx.connect('a', { properties: { maximumPacketSize: 256 } })
  await client.subscribe(ctx.topic(), { qos: 1 })
  const publisher = await ctx.connect('pub')
  await publisher.publish(ctx.topic(), 'w'.repeat(1000), { qos: 1 })
  await publisher.publish(ctx.topic(), 'small', { qos: 1 })
  expect(payloads(await client.take(1)), ['small'], 'the first message')
})

test(V5, 'enhanced authentication is refused', async (ctx) => {
  const client = await ctx.attempt('a', { properties: { authenticationMethod: 'none-known' } })
  check(!client.connack, 'CONNACK accepts it')
  await ctx.wait(() => client.error, () => 'the reason of the refusal')
  expect(client.error.code, 0x8c, 'CONNACK')
})
