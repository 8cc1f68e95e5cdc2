import { call } from './api.js'
import { fill, h } from './dom.js'
import { attempt, badge, button, card, clock, empty, form, head, mono, notice, toast } from './ui.js'
import { MqttClient, shown } from './mqtt.js'

export const title = 'Test client'

const KEPT = 300

export async function render(root, ctx) {
  const said = await call('access.details', { host: location.hostname.replace(/^\[|\]$/g, '') })
  const safe = location.protocol === 'https:'
  const sockets = said.addresses.filter((one) => (safe ? one.scheme === 'wss' : one.scheme === 'ws' || one.scheme === 'wss'))
  // The name that the browser used: the page may connect to no other.
  const urls = sockets.map((one) => `${one.scheme}://${location.hostname}:${one.port}/mqtt`)
  let client = null
  const state = h('span', { 'aria-live': 'polite' }, badge('not connected'))
  const feed = h('ul', { class: 'feed', 'aria-label': 'Messages' })
  const filters = h('div', { class: 'row' })
  const line = (message, mine) => {
    feed.querySelector('.empty')?.remove()
    feed.prepend(h('li', {}, h('div', { class: 'meta' }, h('span', {}, clock()), badge(mine ? 'sent' : 'received', mine ? '' : 'info'), mono(message.topic), h('span', {}, `QoS ${message.qos}`), message.retain ? badge('retained', 'plain') : null),
      h('code', { class: 'mono wrap' }, mine ? message.text : shown(message.payload))))
    while (feed.children.length > KEPT) feed.lastChild.remove()
  }
  const quiet = () => fill(feed, h('li', { class: 'empty' }, 'Nothing yet'))
  quiet()
  const live = () => { if (!client) throw new Error('Connect first.'); return client }
  const connect = form([
    { name: 'url', label: 'Address', type: 'select', options: urls },
    [{ name: 'client_id', label: 'Client id', value: `console-${Math.random().toString(36).slice(2, 8)}`, required: true }, { name: 'username', label: 'User name' }],
    { name: 'password', label: 'Password', type: 'password', autocomplete: 'off' },
  ], 'Connect', (given) => new Promise((done, refuse) => {
    client?.close()
    const made = new MqttClient(given.url, { clientId: given.client_id, username: given.username, password: given.password }, {
      connected: () => { client = made; fill(state, badge('connected', 'good')); fill(filters); done() },
      message: (message) => line(message, false),
      closed: (why) => {
        refuse(new Error(why))
        if (client === made) { client = null; fill(state, badge('not connected')); if (why !== 'Disconnected.') toast(why, 'bad') }
      },
    })
    ctx.onLeave(() => made.close())
  }))
  const subscribe = form([[{ name: 'filter', label: 'Topic filter', value: '#', required: true }, { name: 'qos', label: 'QoS', type: 'select', options: ['0', '1'] }]], 'Subscribe', async (given) => {
    const granted = await live().subscribe(given.filter, Number(given.qos))
    const made = h('span', { class: 'badge info plain' }, `${given.filter} · QoS ${granted}`, h('button', {
      type: 'button', class: 'button small quiet icon', 'aria-label': `Unsubscribe from ${given.filter}`, onclick: () => attempt(async () => { await live().unsubscribe(given.filter); made.remove() }),
    }, '×'))
    filters.append(made)
  })
  const publish = form([
    { name: 'topic', label: 'Topic', value: 'demo/hello', required: true },
    { name: 'payload', label: 'Payload', type: 'area', value: 'hello, fulmar' },
    [{ name: 'qos', label: 'QoS', type: 'select', options: ['0', '1'], value: '1' }, { name: 'retain', label: 'Retain', type: 'check' }],
  ], 'Publish', async (given) => {
    await live().publish(given.topic, given.payload ?? '', { qos: Number(given.qos), retain: given.retain })
    line({ topic: given.topic, text: given.payload ?? '', qos: given.qos, retain: given.retain }, true)
  })
  root.append(h('div', { class: 'page-head' }, h('h1', {}, 'Test client'), state, h('p', { class: 'lead' }, 'MQTT 5 over WebSocket, from this browser to this node.')),
    urls.length ? h('div', { class: 'grid wide' },
      h('div', { class: 'stack' }, card('Connection', button('Disconnect', () => client?.close(), 'small'), connect), card('Subscribe', null, h('div', { class: 'stack' }, subscribe, filters)), card('Publish', null, publish)),
      h('div', { class: 'stack' }, card('Messages', button('Clear', quiet, 'small'), feed))) : notice('warn', 'No listener of this node speaks MQTT over WebSocket', safe ? ' with TLS, which a page with TLS needs.' : '.'))
}
