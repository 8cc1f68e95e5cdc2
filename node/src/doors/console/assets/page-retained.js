import { call } from './api.js'
import { h } from './dom.js'
import { attempt, button, bytes, copyButton, dialog, facts, head, json, mono, number, search, sure, table, time } from './ui.js'
import { marked } from './page-sessions.js'
import { shown } from './mqtt.js'

export const title = 'Retained'

export const bytesOf = (base64) => Uint8Array.from(atob(base64 ?? ''), (char) => char.charCodeAt(0))

export async function render(root, ctx) {
  let filter
  const list = marked((marker) => call('retained.list', { filter, marker }), (said) => [
    table('Retained messages', [
      { label: 'Topic', cell: (one) => h('button', { type: 'button', class: 'button quiet small', onclick: () => open(one.topic) }, one.topic) },
      { label: 'QoS', cell: (one) => one.qos },
      { label: 'Size', number: true, cell: (one) => bytes(one.payload_bytes) },
      { label: 'Accepted', cell: (one) => time(one.time) },
      { label: 'From', cell: (one) => (one.publisher ? mono(one.publisher) : '–') },
      { label: 'Tools', tools: true, cell: (one) => (ctx.may('operator') ? button('Delete', () => sure('Forget the message?', `Who subscribes to ${one.topic} from now on does not get it.`, 'Delete', async () => { await attempt(() => call('retained.delete', { topic: one.topic })); list.reload() }), 'small danger') : null) },
    ], said.messages ?? [], 'No retained message matches'),
    h('p', { class: 'muted small' }, `${number(said.count)} in the cluster`),
  ])
  const open = (topic) => attempt(async () => {
    const one = await call('retained.get', { topic })
    const text = shown(bytesOf(one.payload))
    dialog(topic, () => h('div', { class: 'stack' }, facts([['QoS', one.qos], ['Accepted', time(one.time)], ['Expires', one.expires_at ? time(one.expires_at) : 'never'], ['From', one.publisher]]),
      h('div', { class: 'row' }, h('h3', {}, 'Payload'), copyButton(text)), h('pre', { class: 'block', tabindex: '0' }, text)))
  })
  root.append(head('Retained', 'The last message of a topic, for whoever subscribes later.'), h('section', { class: 'card' },
    h('div', { class: 'bar' }, search('Topic filter, as in plant/+/state', (text) => { filter = text || undefined; list.restart() })), list))
  await list.ready
}
