// What every version of MQTT has, with MQTT.js over TCP, TLS, WS and WSS.

import { check, expect, payloads, test } from './mqttjs_harness.mjs'

const DOORS = { tcp: 'mqtt', tls: 'mqtts', ws: 'ws', wss: 'wss' }
const VERSIONS = { '3.1': 3, '3.1.1': 4, 5: 5 }

export const SUITES = Object.entries(DOORS).flatMap(([short, door]) =>
  Object.entries(VERSIONS)
    .sort()
    .map(([version, number]) => ({ name: `mqttjs-${version}-${short}`, door, version: number })),
)
const WEB = SUITES.filter(({ door }) => door.startsWith('ws'))

const each = (count, f) => Array.from({ length: count }, (_, n) => f(n))
const wipe = async (ctx, role = 'a') => { await (await ctx.connect(role, { clean: true })).end() }

test(SUITES, 'connect', async (ctx) => {
  const client = await ctx.connect()
  expect(client.connack.sessionPresent, false, 'session present of a clean session')
  await client.end()
})

test(WEB, 'any path', async (ctx) => {
  for (const path of ['/', '/mqtt', '/some/other/path']) {
    const client = await ctx.connect('a', { path })
    await client.subscribe(ctx.topic())
    await client.publish(ctx.topic(), path)
    expect(payloads(await client.take(1)), [path], 'message')
    await client.end()
  }
})

test(SUITES, 'retained', async (ctx) => {
  const publisher = await ctx.connect('pub')
  await publisher.publish(ctx.topic('r'), 'old', { qos: 1, retain: true })
  await publisher.publish(ctx.topic('r'), 'kept', { qos: 1, retain: true })
  const early = await ctx.connect('early')
  await early.subscribe(ctx.topic('#'), { qos: 1 })
  const replay = await early.takeOne()
  expect([replay.payload.toString(), replay.retain], ['kept', true], 'replay')
  await publisher.publish(ctx.topic('r'), '', { qos: 1, retain: true })
  const late = await ctx.connect('late')
  await late.subscribe(ctx.topic('#'), { qos: 1 })
  await publisher.publish(ctx.topic('r'), 'sentinel', { qos: 1 })
  expect(payloads(await late.until('sentinel')), [], 'replay after clearing')
})

test(SUITES, 'will', async (ctx) => {
  const watcher = await ctx.connect('watch')
  await watcher.subscribe(ctx.topic('w'), { qos: 2 })
  for (const qos of [0, 1, 2]) {
    const will = { topic: ctx.topic('w'), payload: Buffer.from(`gone ${qos}`), qos, retain: false }
    const dying = await ctx.connect('dying', { will })
    await dying.kill()
    const got = await watcher.takeOne()
    expect([got.payload.toString(), got.qos], [`gone ${qos}`, qos], 'will')
  }
})

test(SUITES, 'no will after disconnect', async (ctx) => {
  const watcher = await ctx.connect('watch')
  await watcher.subscribe(ctx.topic('#'), { qos: 1 })
  const leaving = await ctx.connect('l', { will: { topic: ctx.topic('w'), payload: Buffer.from('wrong'), qos: 1 } })
  await leaving.end()
  await ctx.connect('l')
  await watcher.publish(ctx.topic('s'), 'sentinel', { qos: 1 })
  expect(payloads(await watcher.until('sentinel')), [], 'messages')
})

test(SUITES, 'wildcards', async (ctx) => {
  const client = await ctx.connect()
  await client.subscribe(ctx.topic('s'), { qos: 1 })
  const topics = ['t', 't/', 't/a', 't/a/b', 't//b', 'u/a']
  const wanted = {
    't/#': ['t', 't/', 't/a', 't/a/b', 't//b'],
    't/+': ['t/', 't/a'],
    '+/a': ['t/a', 'u/a'],
    't/+/b': ['t/a/b', 't//b'],
    '+/+/+': ['t/a/b', 't//b'],
  }
  for (const [pattern, matches] of Object.entries(wanted)) {
    await client.subscribe(ctx.topic(pattern), { qos: 1 })
    for (const topic of topics) await client.publish(ctx.topic(topic), topic, { qos: 1 })
    await client.publish(ctx.topic('s'), 'sentinel', { qos: 1 })
    expect(payloads(await client.until('sentinel')).sort(), [...matches].sort(), `topics for ${pattern}`)
    await client.unsubscribe(ctx.topic(pattern))
  }
})

test(SUITES, 'dollar topics', async (ctx) => {
  const system = await ctx.connect('sys')
  await system.subscribe('$SYS/#')
  check((await system.takeOne()).topic.startsWith('$SYS/'), 'a topic under $SYS')
  const everything = await ctx.connect('all')
  await everything.subscribe('#')
  await everything.subscribe('+/broker/#')
  await everything.publish(ctx.topic(), ctx.suffix)
  const got = await everything.until(ctx.suffix)
  expect(got.map((m) => m.topic).filter((topic) => topic.startsWith('$')), [], 'topics with $ that # or + matched')
})

test(SUITES, 'qos round trip', async (ctx) => {
  const subscriber = await ctx.connect('sub')
  const publisher = await ctx.connect('pub')
  for (const qos of [0, 1, 2]) {
    const topic = ctx.topic(`${qos}`)
    expect(await subscriber.subscribe(topic, { qos }), [qos], 'granted QoS')
    const wanted = each(50, (n) => `message ${n}`)
    // MQTT.js does not hold back for the server's receive maximum, so no more than ten are on the way at once.
    for (let n = 0; n < wanted.length; n += 10) {
      await Promise.all(wanted.slice(n, n + 10).map((payload) => publisher.publish(topic, payload, { qos })))
    }
    const got = await subscriber.take(50)
    expect(payloads(got), wanted, `payloads at QoS ${qos}, in order, each once`)
    check(got.every((m) => m.qos === qos && !m.dup), `QoS and DUP at QoS ${qos}`)
    await subscriber.unsubscribe(topic)
  }
  expect(payloads(subscriber.messages), [], 'more than was published')
})

test(SUITES, 'payload sizes and bytes', async (ctx) => {
  const client = await ctx.connect()
  await client.subscribe(ctx.topic(), { qos: 1 })
  const all = Buffer.from(each(256, (n) => n))
  for (const payload of [Buffer.alloc(0), all, Buffer.alloc(125, 1), Buffer.alloc(66_000, 2), Buffer.alloc(200_000, 3)]) {
    await client.publish(ctx.topic(), payload, { qos: 1 })
    check(payload.equals((await client.takeOne()).payload), `a payload of ${payload.length} bytes came back changed`)
  }
})

test(SUITES, 'offline queue', async (ctx) => {
  const first = await ctx.connect('a', { clean: false })
  expect(first.connack.sessionPresent, false, 'session present at first')
  await first.subscribe({ [ctx.topic('1')]: { qos: 1 }, [ctx.topic('2')]: { qos: 2 } })
  await first.end()
  const publisher = await ctx.connect('pub')
  for (const n of each(20, (n) => n)) {
    await publisher.publish(ctx.topic('1'), `${n}`, { qos: 1 })
    await publisher.publish(ctx.topic('2'), `${n}`, { qos: 2 })
  }
  const back = await ctx.connect('a', { clean: false })
  if (ctx.version !== 3) expect(back.connack.sessionPresent, true, 'session present on return')
  const got = await back.take(40)
  for (const qos of [1, 2]) {
    const mine = got.filter((m) => m.topic === ctx.topic(`${qos}`))
    expect(payloads(mine), each(20, (n) => `${n}`), `the queue at QoS ${qos}`)
    check(mine.every((m) => m.qos === qos), 'QoS of the queue')
  }
  await publisher.publish(ctx.topic('1'), 'sentinel', { qos: 1 })
  expect(payloads(await back.until('sentinel')), [], 'more than was queued')
  await back.end()
  await wipe(ctx)
})

test(SUITES, 'clean start drops the session', async (ctx) => {
  const first = await ctx.connect('a', { clean: false })
  await first.subscribe(ctx.topic(), { qos: 1 })
  await first.end()
  const clean = await ctx.connect('a', { clean: true })
  expect(clean.connack.sessionPresent, false, 'session present')
  await clean.subscribe(ctx.topic('s'), { qos: 1 })
  await clean.publish(ctx.topic(), 'wrong', { qos: 1 })
  await clean.publish(ctx.topic('s'), 'sentinel', { qos: 1 })
  expect(payloads(await clean.until('sentinel')), [], 'messages of the dropped session')
})

test(SUITES, 'takeover', async (ctx) => {
  const first = await ctx.connect('a', { clean: false })
  await first.subscribe(ctx.topic(), { qos: 1 })
  const second = await ctx.connect('a', { clean: false })
  await first.waitClosed()
  if (ctx.version === 5) expect(first.disconnectPacket?.reasonCode, 0x8e, 'reason of the DISCONNECT')
  if (ctx.version !== 3) expect(second.connack.sessionPresent, true, 'session present')
  await second.publish(ctx.topic(), 'moved', { qos: 1 })
  expect(payloads(await second.take(1)), ['moved'], 'message')
  await second.end()
  await wipe(ctx)
})

test(SUITES, 'shared subscription', async (ctx) => {
  const members = [await ctx.connect('m0'), await ctx.connect('m1')]
  for (const [n, member] of members.entries()) {
    await member.subscribe(`$share/g${ctx.suffix}/${ctx.topic('t/#')}`, { qos: 1 })
    await member.subscribe(ctx.topic(`s${n}`), { qos: 1 })
  }
  const publisher = await ctx.connect('pub')
  const wanted = each(40, (n) => String(n).padStart(2, '0'))
  for (const payload of wanted) await publisher.publish(ctx.topic(`t/${payload % 3}`), payload, { qos: 1 })
  await ctx.wait(() => members[0].messages.length + members[1].messages.length >= 40, () => '40 messages')
  for (const n of [0, 1]) await publisher.publish(ctx.topic(`s${n}`), 'sentinel', { qos: 1 })
  const parts = [payloads(await members[0].until('sentinel')), payloads(await members[1].until('sentinel'))]
  expect([...parts[0], ...parts[1]].sort(), wanted, 'messages over both members, each once')
  check(parts[0].length && parts[1].length, `not split: ${parts[0].length} and ${parts[1].length}`)
})

test(SUITES, 'unsubscribe', async (ctx) => {
  const client = await ctx.connect()
  await client.subscribe([ctx.topic('a'), ctx.topic('b'), ctx.topic('s')], { qos: 1 })
  await client.unsubscribe([ctx.topic('a'), ctx.topic('b')])
  await client.publish(ctx.topic('a'), 'wrong', { qos: 1 })
  await client.publish(ctx.topic('b'), 'wrong', { qos: 1 })
  await client.publish(ctx.topic('s'), 'sentinel', { qos: 1 })
  expect(payloads(await client.until('sentinel')), [], 'messages after UNSUBACK')
})

test(SUITES, 'keep alive holds an idle connection', async (ctx) => {
  const client = await ctx.connect('a', { keepalive: 1 })
  await client.subscribe(ctx.topic())
  await ctx.letTimePass(3500)
  await client.publish(ctx.topic(), 'here')
  await client.takeOne()
}, 15_000)
