import { call } from './api.js'
import { fill, h, s } from './dom.js'
import { attempt, badge, button, card, empty, facts, field, form, head, loaded, mono, notice, number, table, time } from './ui.js'
import { silent } from './page-topics.js'
import { bytesOf } from './page-retained.js'
import { shown } from './mqtt.js'

export const title = 'Trace'

const KINDS = [['client', 'A client or device'], ['topic', 'A topic filter'], ['rule', 'A rule'], ['sample', 'One message of so many']]
const WORDS = { in: 'came in', auth: 'permission', match: 'matched', commit: 'committed', forward: 'to another node', from: 'from another node', queue: 'queued', out: 'sent', ack: 'acknowledged', drop: 'dropped', rule: 'rule' }

const about = (trace) => (trace.client ? `client ${trace.client}` : trace.topic ? `topic ${trace.topic}` : trace.rule ? `rule ${trace.rule}` : `1 of ${trace.sample}`)

/** The way of one message over the nodes: a lane for each, a point for each hop, in time from left to right. */
function lanes(message) {
  const nodes = [...new Set(message.hops.map((hop) => hop.node))]
  const [left, step] = [104, 74]
  const width = Math.max(560, left + 40 + step * message.hops.length)
  const height = nodes.length * 62 + 22
  const place = message.hops.map((hop, index) => [left + 26 + index * step, 38 + 62 * nodes.indexOf(hop.node)])
  const said = message.hops.map((hop) => `${WORDS[hop.stage] ?? hop.stage} at ${hop.node.slice(-4)}`).join(', ')
  return h('div', { class: 'lanes', tabindex: '0', role: 'group', 'aria-label': 'The way over the nodes' }, s('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': said },
    nodes.map((node, index) => [s('line', { x1: left, x2: width - 8, y1: 38 + 62 * index, y2: 38 + 62 * index }), s('text', { class: 'name', x: 2, y: 42 + 62 * index }, `node …${node.slice(-4)}`)]),
    s('polyline', { points: place.map((at) => at.join(',')).join(' ') }),
    message.hops.map((hop, index) => [s('circle', { class: hop.stage, cx: place[index][0], cy: place[index][1], r: 7 }),
      s('text', { x: place[index][0], y: place[index][1] + (index % 2 ? 25 : -14), 'text-anchor': 'middle' }, hop.stage)])))
}

function way(message) {
  const began = Number(message.hops[0]?.at_us ?? 0)
  return h('section', { class: 'card', 'data-message': message.message },
    h('header', {}, h('h2', { class: 'wrap' }, message.topic || 'a message'), badge(`${new Set(message.hops.map((hop) => hop.node)).size} nodes`, 'info'), mono(message.message)),
    lanes(message),
    h('ol', { class: 'path' }, message.hops.map((hop) => h('li', { class: hop.stage }, h('div', {},
      h('div', { class: 'row' }, h('strong', {}, WORDS[hop.stage] ?? hop.stage), mono(`…${hop.node.slice(-4)}`), h('span', { class: 'muted small' }, `+${((Number(hop.at_us) - began) / 1000).toFixed(2)} ms`), Number(hop.epoch) ? h('span', { class: 'muted small' }, `epoch ${hop.epoch}`) : null),
      h('div', { class: 'small wrap' }, [hop.client, ...Object.entries(hop.details ?? {}).map(([name, value]) => `${name} ${value}`)].filter(Boolean).join(' · ')),
      hop.payload ? h('code', { class: 'mono wrap' }, shown(bytesOf(hop.payload))) : null)))))
}

export async function render(root, ctx, [id], query) {
  const operator = ctx.may('operator')
  if (id) return one(root, ctx, id)
  const list = loaded(() => call('traces.list'), (said) => table('Running traces', [
    { label: 'Trace', cell: (trace) => h('a', { href: `#/trace/${trace.trace}` }, about(trace)) },
    { label: 'By', cell: (trace) => trace.by }, { label: 'Since', cell: (trace) => time(trace.started_at) }, { label: 'Until', cell: (trace) => time(trace.ends_at) },
    { label: 'Tools', tools: true, cell: (trace) => (operator ? button('Stop', async () => { await attempt(() => call('traces.stop', { trace: trace.trace })); list.reload() }, 'small') : null) },
  ], said.traces ?? [], empty('No trace runs', 'While none does, tracing costs nothing.')))
  const first = KINDS.find(([kind]) => query.get(kind))?.[0] ?? 'client'
  const start = form([
    [{ name: 'kind', label: 'Trace', type: 'select', options: KINDS, value: first }, { name: 'what', label: 'Which', required: true, value: query.get(first) ?? '', hint: 'Client id or device id, topic filter, rule id, or a number' }],
    [{ name: 'seconds', label: 'For', type: 'select', options: [['600', 'ten minutes'], ['3600', 'an hour'], ['86400', 'a day']] }, { name: 'payload_bytes', label: 'Bytes of payloads', type: 'number', min: 0, max: 4096, value: 0, hint: '0: none are kept' }],
  ], 'Start the trace', async (given) => {
    const made = await call('traces.start', { [given.kind]: given.kind === 'sample' ? Number(given.what) : given.what, seconds: Number(given.seconds), payload_bytes: given.payload_bytes ?? 0 })
    location.hash = `#/trace/${made.trace}`
  })
  root.append(head('Trace', 'Messages on their way through the cluster, hop by hop.'), h('div', { class: 'stack' }, operator ? card('A new trace', null, start) : notice('', 'Operators and admins start traces.'), card('Running', null, list)))
  await list.ready
  ctx.every(4000, () => list.reload())
}

async function one(root, ctx, id) {
  const trace = Number(id)
  const seen = loaded(() => call('traces.show', { trace, limit: 25 }), (said) => [silent(said),
    (said.nodes ?? []).some((node) => Number(node.lost)) ? notice('warn', 'Some hops have gone for want of room: trace less at a time.') : null,
    said.messages?.length ? [...said.messages].reverse().map(way) : card(null, null, empty('No message yet', 'What is traced appears here as it comes.'))])
  root.append(head(`Trace ${id}`, null, [h('a', { class: 'button', href: '#/trace' }, 'All traces'), ctx.may('operator') ? button('Stop', () => attempt(() => call('traces.stop', { trace }), 'Stopped')) : null]), seen)
  await seen.ready
  ctx.every(2000, () => seen.reload())
}
