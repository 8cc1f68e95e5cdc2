// A small client of MQTT 5 over WebSocket: connect, subscribe, publish with QoS 0 and 1, receive, ping.

const encoder = new TextEncoder()
const decoder = new TextDecoder()

function text(value) {
  const bytes = encoder.encode(value)
  if (bytes.length > 65_535) throw new Error('The text is longer than 65535 bytes.')
  return [bytes.length >> 8, bytes.length & 255, ...bytes]
}

function length(value) {
  const out = []
  do {
    out.push((value % 128) | (value > 127 ? 128 : 0))
    value = Math.floor(value / 128)
  } while (value > 0)
  return out
}

const packet = (first, body) => Uint8Array.from([first, ...length(body.length), ...body])

const REASONS = {
  0x80: 'unspecified error', 0x81: 'malformed packet', 0x82: 'protocol error', 0x84: 'unsupported version', 0x85: 'client id not valid',
  0x86: 'bad user name or password', 0x87: 'not authorised', 0x88: 'server unavailable', 0x89: 'server busy', 0x8a: 'banned', 0x8b: 'server shutting down',
  0x8d: 'keep alive timeout', 0x8e: 'session taken over', 0x8f: 'topic filter not valid', 0x90: 'topic name not valid', 0x93: 'receive maximum exceeded',
  0x95: 'packet too large', 0x97: 'quota exceeded', 0x98: 'administrative action', 0x99: 'payload format not valid', 0x9f: 'connection rate exceeded', 0x10: 'no matching subscribers',
}
export const reason = (code) => REASONS[code] ?? (code < 0x80 ? `code ${code}` : `reason 0x${code.toString(16)}`)

/** Reads the fields of a packet's body. */
class Reader {
  constructor(bytes) { this.bytes = bytes; this.at = 0 }
  byte() { return this.bytes[this.at++] }
  short() { return (this.byte() << 8) | this.byte() }
  text() { const size = this.short(); this.at += size; return decoder.decode(this.bytes.subarray(this.at - size, this.at)) }
  variable() {
    let [value, factor, byte] = [0, 1, 0]
    do { byte = this.byte(); value += (byte & 127) * factor; factor *= 128 } while (byte & 128)
    return value
  }
  skipProperties() { const size = this.variable(); this.at += size }
  rest() { return this.bytes.subarray(this.at) }
}

export class MqttClient {
  /** `on` has `connected`, `message`, `closed`. */
  constructor(url, { clientId, username, password, clean = true }, on) {
    this.on = on
    this.buffer = new Uint8Array()
    this.next = 1
    this.waiting = new Map()
    this.why = ''
    this.socket = new WebSocket(url, 'mqtt')
    this.socket.binaryType = 'arraybuffer'
    this.socket.onopen = () => {
      const flags = (clean ? 2 : 0) | (password ? 0x40 : 0) | (username ? 0x80 : 0)
      this.send(0x10, [...text('MQTT'), 5, flags, 0, 60, 0, ...text(clientId), ...(username ? text(username) : []), ...(password ? text(password) : [])])
    }
    this.socket.onmessage = ({ data }) => this.take(new Uint8Array(data))
    this.socket.onclose = () => {
      clearInterval(this.pings)
      for (const { refuse } of this.waiting.values()) refuse(new Error('The connection is closed.'))
      this.waiting.clear()
      on.closed(this.why || 'The connection is closed.')
    }
  }

  send(first, body) { this.socket.send(packet(first, body)) }

  take(bytes) {
    const joined = new Uint8Array(this.buffer.length + bytes.length)
    joined.set(this.buffer)
    joined.set(bytes, this.buffer.length)
    this.buffer = joined
    for (;;) {
      let [size, factor, at, byte] = [0, 1, 1, 128]
      while (byte & 128) {
        if (at >= this.buffer.length) return
        byte = this.buffer[at++]
        size += (byte & 127) * factor
        factor *= 128
      }
      if (this.buffer.length < at + size) return
      this.handle(this.buffer[0], new Reader(this.buffer.slice(at, at + size)))
      this.buffer = this.buffer.slice(at + size)
    }
  }

  handle(first, body) {
    switch (first >> 4) {
      case 2: {
        const flags = body.byte()
        const code = body.byte()
        if (code) { this.why = `Refused: ${reason(code)}.`; this.socket.close() } else {
          this.pings = setInterval(() => this.send(0xc0, []), 30_000)
          this.on.connected(Boolean(flags & 1))
        }
        break
      }
      case 3: {
        const qos = (first >> 1) & 3
        const topic = body.text()
        const id = qos ? body.short() : 0
        body.skipProperties()
        this.on.message({ topic, payload: body.rest(), qos, retain: Boolean(first & 1) })
        if (qos === 1) this.send(0x40, [id >> 8, id & 255])
        break
      }
      case 4: this.answered(body.short(), body.bytes.length > 2 ? body.byte() : 0); break
      case 9: case 11: { const id = body.short(); body.skipProperties(); this.answered(id, body.byte()); break }
      case 14: this.why = `The server has ended it: ${reason(body.bytes.length ? body.byte() : 0)}.`; break
      default: break
    }
  }

  answered(id, code) {
    const asked = this.waiting.get(id)
    this.waiting.delete(id)
    if (!asked) return
    if (code >= 0x80) asked.refuse(new Error(`Refused: ${reason(code)}.`))
    else asked.done(code)
  }

  ask(first, body) {
    const id = this.next
    this.next = (this.next % 65_535) + 1
    return new Promise((done, refuse) => {
      this.waiting.set(id, { done, refuse })
      this.send(first, body([id >> 8, id & 255]))
    })
  }

  /** Resolves to what was granted. */
  subscribe(filter, qos) { return this.ask(0x82, (id) => [...id, 0, ...text(filter), qos]) }

  unsubscribe(filter) { return this.ask(0xa2, (id) => [...id, 0, ...text(filter)]) }

  async publish(topic, payload, { qos = 0, retain = false } = {}) {
    const bytes = encoder.encode(payload)
    const first = 0x30 | (qos << 1) | (retain ? 1 : 0)
    if (!qos) { this.send(first, [...text(topic), 0, ...bytes]); return 0 }
    return this.ask(first, (id) => [...text(topic), ...id, 0, ...bytes])
  }

  close() {
    if (this.socket.readyState === WebSocket.OPEN) this.send(0xe0, [])
    this.why = 'Disconnected.'
    this.socket.close()
  }
}

/** Text, where the bytes are text. */
export function shown(bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return `${bytes.length} bytes: ${[...bytes.slice(0, 64)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')}`
  }
}
