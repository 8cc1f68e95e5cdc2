import { call } from './api.js'
import { h } from './dom.js'
import { attempt, badge, button, bytes, card, empty, facts, head, loaded, mono, notice, number, sure, table, time } from './ui.js'

export const title = 'Session'

const REPLAY = ['at each SUBSCRIBE', 'at the first SUBSCRIBE', 'never']

export async function render(root, ctx, [name]) {
  const operator = ctx.may('operator')
  const state = h('span')
  const part = loaded(() => call('sessions.show', { session: name }), (detail) => {
    const { session, connection, will } = detail
    state.replaceChildren(badge(session.connected ? 'connected' : 'away', session.connected ? 'good' : 'warn'))
    return [
      h('div', { class: 'grid' },
        card('Session', null, facts([
          ['Dialect', session.dialect], ['Identity', mono(session.identity)], ['Epoch', number(session.epoch)], ['Node', session.node ? mono(session.node) : null],
          ['Outlives its connection', session.persistent ? `by ${number(session.expiry_s)} s` : 'no'], ['Ends', session.ends_at ? time(session.ends_at) : null],
          ['Queue', `${number(session.queued)} messages, ${bytes(session.queued_bytes)}`], ['Oldest in it', detail.queue_oldest ? time(detail.queue_oldest) : null],
          ['Will', will ? h('span', {}, mono(will.topic), ` QoS ${will.qos}, ${bytes(will.payload_bytes)}`) : 'none'],
        ])),
        card('Connection', null, connection ? facts([
          ['From', mono(connection.address)], ['Since', time(connection.connected_at)], ['Client id', mono(connection.client_id)],
          ['Protocol', `MQTT ${connection.protocol}${connection.encrypted ? ', TLS' : ''}`], ['Keep alive', `${connection.keep_alive_s} s`],
          ['Messages in', number(connection.messages_in)], ['Messages out', number(connection.messages_out)], ['Dropped', number(connection.dropped)],
          ['Live queue', `${number(connection.live_queued)}, ${bytes(connection.live_queued_bytes)}`], ['Publishers that wait', number(connection.publishers_waiting)],
          ['In flight', `${number(connection.inflight)} of ${number(connection.receive_maximum)}`],
        ]) : empty(session.connected ? 'The node of its connection was not reached' : 'Not connected'))),
      card('Subscriptions', null, detail.subscriptions_known === false ? notice('', 'Those of a session that ends with its connection are known to its node alone.') : null,
        table('Subscriptions', [
          { label: 'Filter', cell: (one) => mono(one.filter) }, { label: 'QoS', cell: (one) => one.qos },
          { label: 'Retained messages', cell: (one) => REPLAY[one.retain_handling ?? 0] },
          { label: 'Options', cell: (one) => [one.no_local && 'no local', one.retain_as_published && 'retain as published', one.subscription_id && `id ${one.subscription_id}`].filter(Boolean).join(', ') || '–' },
        ], detail.subscriptions ?? [], 'It has subscribed to nothing')),
      connection?.unacknowledged?.length ? card('In flight', null, table('Deliveries that are not acknowledged', [
        { label: 'Packet id', cell: (one) => one.packet_id }, { label: 'QoS', cell: (one) => one.qos },
        { label: 'Waits for', cell: (one) => (one.qos === 1 ? 'PUBACK' : one.received ? 'PUBCOMP' : 'PUBREC') }, { label: 'Queue entry', cell: (one) => one.sequence ?? '–' },
      ], connection.unacknowledged)) : null,
    ]
  })
  const client = encodeURIComponent(name.split('/').slice(2).join('/'))
  root.append(h('div', { class: 'page-head' }, h('h1', {}, name.split('/').slice(2).join('/') || name), state, h('div', { class: 'actions' },
    h('a', { class: 'button', href: `#/why?client=${client}` }, 'Why?'), h('a', { class: 'button', href: `#/trace?client=${client}` }, 'Trace'),
    operator ? [
      button('Disconnect', async () => { await attempt(() => call('sessions.disconnect', { session: name }), 'Disconnected'); part.reload() }),
      button('Clear', () => sure('Clear the session?', 'Its connection, its subscriptions and everything in its queue go for good.', 'Clear', async () => {
        if (await attempt(() => call('sessions.clear', { session: name }), 'Cleared') !== undefined) location.hash = '#/sessions'
      }), 'danger'),
    ] : null)), part)
  await part.ready
  ctx.every(4000, () => part.reload())
}
