// The case registry, the runner and a promise-based wrapper around MQTT.js. Every wait ends by the case's deadline.

import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, isAbsolute, join } from 'node:path'

// The packages are installed in a cache folder, not beside these files.
const require = createRequire(join(process.env.INTEROP_NODE_DIR ?? import.meta.dirname, 'package.json'))
const mqtt = require('mqtt')
const { parser: packetParser } = require('mqtt-packet')

const DEFAULT_DEADLINE = 10_000

export class Failure extends Error {}

export function expect(actual, wanted, what) {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(wanted)]
  if (a !== b) throw new Failure(`${what}: wanted ${b}, got ${a}`)
}

export function check(fact, what) {
  if (!fact) throw new Failure(what)
}

export class Endpoints {
  constructor(path) {
    const content = JSON.parse(readFileSync(path, 'utf8'))
    this.node = content.nodes[0]
    const ca = content.ca && (isAbsolute(content.ca) ? content.ca : join(dirname(path), content.ca))
    this.ca = ca ? readFileSync(ca) : undefined
  }

  url(door, path) {
    if (!this.node[door]) throw new Failure(`endpoints.json has no ${door} door`)
    return `${door}://${this.node[door]}${door.startsWith('ws') ? path : ''}`
  }
}

export class Context {
  constructor(endpoints, suite, name, seed, deadline) {
    this.endpoints = endpoints
    this.door = suite.door
    this.version = suite.version
    const digest = createHash('sha256').update(`${seed}/${suite.name}/${name}`).digest('base64url')
    this.suffix = digest.replace(/[^A-Za-z0-9]/g, '').slice(0, 10)
    this.end = Date.now() + deadline
    this.clients = []
  }

  topic(rest) {
    return `interop/${this.suffix}${rest ? `/${rest}` : ''}`
  }

  // At most 23 bytes, which is all that MQTT 3.1 promises.
  clientId(role = 'a') {
    return `js-${this.suffix}-${role}`.slice(0, 23)
  }

  // Waits until fact() is truthy.
  async wait(fact, what) {
    for (;;) {
      const value = fact()
      if (value) return value
      if (Date.now() > this.end) throw new Failure(`deadline passed waiting for ${what()}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  // A promise of MQTT.js, which has no deadline of its own.
  async bounded(promise, what) {
    let timer
    const late = new Promise((_, reject) => {
      const left = Math.max(1, this.end - Date.now())
      timer = setTimeout(() => reject(new Failure(`deadline passed waiting for ${what}`)), left)
    })
    try {
      return await Promise.race([promise, late])
    } finally {
      clearTimeout(timer)
    }
  }

  // For cases whose subject is time itself, never to make something likely.
  async letTimePass(milliseconds) {
    if (Date.now() + milliseconds > this.end) throw new Failure('deadline would pass during a wait the case needs')
    await new Promise((resolve) => setTimeout(resolve, milliseconds))
  }

  // Connects and waits for CONNACK. Options: role, clean, expiry (s), will, path, and any option of MQTT.js.
  async connect(role = 'a', options = {}) {
    const client = await this.attempt(role, options)
    if (!client.connack) throw new Failure(`no CONNACK: ${client.error ?? 'closed'}`)
    return client
  }

  async attempt(role = 'a', options = {}) {
    const client = new Client(this, role, options)
    this.clients.push(client)
    await this.wait(() => client.connack || client.error || client.closed, () => 'CONNACK')
    return client
  }

  close() {
    for (const client of this.clients) client.mqtt.end(true)
  }
}

export class Client {
  constructor(ctx, role, { clean = true, expiry, path = '/mqtt', properties = {}, hold = false, ...rest }) {
    this.ctx = ctx
    this.messages = []
    this.closed = false
    const five = ctx.version === 5
    if (five && (expiry !== undefined || !clean)) properties = { sessionExpiryInterval: expiry ?? 120, ...properties }
    this.mqtt = mqtt.connect(ctx.endpoints.url(ctx.door, path), {
      protocolVersion: ctx.version,
      protocolId: ctx.version === 3 ? 'MQIsdp' : 'MQTT',
      clientId: ctx.clientId(role),
      clean,
      reconnectPeriod: 0,
      connectTimeout: 9_000,
      resubscribe: false,
      keepalive: 60,
      ca: ctx.endpoints.ca,
      wsOptions: { ca: ctx.endpoints.ca },
      ...(five ? { properties } : {}),
      ...rest,
    })
    this.mqtt.on('connect', (connack) => { this.connack = connack })
    this.mqtt.on('error', (error) => { this.error ??= error })
    this.mqtt.on('close', () => { this.closed = true })
    // The last PUBACK, PUBREC and so on, since publishAsync() does not hand them on.
    this.answers = {}
    this.mqtt.on('packetreceive', (packet) => { this.answers[packet.cmd] = packet })
    this.mqtt.on('disconnect', (packet) => { this.disconnectPacket = packet })
    // The event's topic has its alias resolved; the packet's may be empty.
    this.mqtt.on('message', (topic, payload, packet) => { this.messages.push({ ...packet, topic }) })
    if (hold) this.holdAcknowledgements()
  }

  // Keeps each PUBLISH unacknowledged until release(). MQTT.js stops reading packets meanwhile, so what the server
  // sends is counted by a second parser on the stream.
  holdAcknowledgements() {
    this.releases = []
    this.received = []
    this.mqtt.handleMessage = (packet, done) => { this.releases.push(done) }
    const tap = packetParser({ protocolVersion: this.ctx.version })
    tap.on('packet', (packet) => { if (packet.cmd === 'publish') this.received.push(packet.payload.toString()) })
    this.mqtt.stream.on('data', (data) => tap.parse(Buffer.from(data)))
  }

  async release() {
    const done = await this.ctx.wait(() => this.releases.shift(), () => 'a held message')
    done()
  }

  // Returns the granted codes.
  async subscribe(filter, options = { qos: 0 }) {
    const call = this.mqtt.subscribeAsync(filter, options)
    const granted = await this.ctx.bounded(call, `SUBACK for ${JSON.stringify(filter)}`)
    return granted.map((grant) => grant.qos)
  }

  async unsubscribe(filter) {
    await this.ctx.bounded(this.mqtt.unsubscribeAsync(filter), 'UNSUBACK')
  }

  // Waits for the whole QoS exchange.
  async publish(topic, payload, options = {}) {
    await this.ctx.bounded(this.mqtt.publishAsync(topic, payload, options), `the end of a PUBLISH to ${topic}`)
  }

  async take(count) {
    await this.ctx.wait(
      () => this.messages.length >= count || this.closed,
      () => `${count} messages, have ${JSON.stringify(payloads(this.messages).slice(0, 20))}`,
    )
    if (this.messages.length < count) throw new Failure(`closed with ${this.messages.length} of ${count} messages`)
    return this.messages.splice(0, count)
  }

  async takeOne() {
    return (await this.take(1))[0]
  }

  // All messages up to the sentinel, which is left out.
  async until(sentinel) {
    const index = () => this.messages.findIndex((m) => m.payload.toString() === sentinel)
    await this.ctx.wait(() => index() >= 0, () => `the sentinel, have ${JSON.stringify(payloads(this.messages).slice(0, 20))}`)
    return this.messages.splice(0, index() + 1).slice(0, -1)
  }

  // Drops the connection with no DISCONNECT, as a crash or a lost network would.
  async kill() {
    this.mqtt.stream.destroy()
    await this.waitClosed()
  }

  async waitClosed() {
    await this.ctx.wait(() => this.closed, () => 'the end of the connection')
  }

  async end(options = {}) {
    await this.ctx.bounded(this.mqtt.endAsync(false, options), 'the end after DISCONNECT')
  }
}

export function payloads(messages) {
  return messages.map((m) => m.payload.toString())
}

const cases = []

// Registers one case for each of the suites ({name, door, version}).
export function test(suites, name, run, deadline = DEFAULT_DEADLINE) {
  for (const suite of suites) cases.push({ suite, name, run, deadline })
}

export async function main() {
  const endpoints = new Endpoints(process.argv[2])
  const seed = process.env.INTEROP_SEED || randomBytes(4).toString('hex')
  const jobs = Number(process.env.INTEROP_JOBS || 4)
  const only = new RegExp(process.env.INTEROP_ONLY || '')
  const waiting = cases.filter(({ suite, name }) => only.test(`${suite.name}  ${name}`))
  let failed = 0
  process.stderr.write(`seed ${seed}, ${jobs} at a time\n`)
  const work = async () => {
    for (let item; (item = waiting.shift()); ) {
      const { suite, name, run, deadline } = item
      const ctx = new Context(endpoints, suite, name, seed, deadline)
      try {
        // The outer bound is for a case that waits past its own deadline.
        await Promise.race([
          run(ctx),
          new Promise((_, reject) => setTimeout(() => reject(new Failure('abandoned')), deadline + 5_000).unref()),
        ])
        console.log(`ok  ${suite.name}  ${name}`)
      } catch (error) {
        failed += 1
        const text = error instanceof Failure ? error.message : `${error?.stack ?? error}`.split('\n').slice(0, 2).join(' ')
        console.log(`FAIL  ${suite.name}  ${name}  ${text.replace(/\s+/g, ' ').slice(0, 500)}`)
      } finally {
        ctx.close()
      }
    }
  }
  await Promise.all(Array.from({ length: jobs }, work))
  process.exit(failed ? 1 : 0)
}
