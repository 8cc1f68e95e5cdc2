import { call, watch } from './api.js'
import { fill, h } from './dom.js'
import { badge, card, head, mono, notice, number, table, told } from './ui.js'
import { chart, clusterMap } from './chart.js'

export const title = 'Overview'

const EVERY = 2000

const sum = (list) => list.reduce((all, one) => all + Number(one ?? 0), 0)

/** What all nodes have counted together, of those that have told. */
function together(said) {
  const told = (said.nodes ?? []).map((one) => one.metrics).filter(Boolean)
  if (!told.length) return null
  const of = (name) => sum(told.map((one) => one[name]))
  return {
    nodes: told.length, in: of('messages_in'), out: of('messages_out'), expired: of('expired'),
    dropped: sum(told.flatMap((one) => Object.values(one.dropped ?? {}))),
    syncs: of('log_syncs'), sync_us: of('log_sync_us'), open: of('live_open'), connections: of('connections'),
  }
}

export async function render(root, ctx) {
  const members = h('div')
  const map = h('div')
  const tiles = h('div', { class: 'tiles' })
  const alarms = h('div', { 'aria-live': 'polite' })
  const throughput = chart('Throughput', ['in', 'out'], '/s')
  const latency = chart('Latency', ['commit of the log'], ' ms')
  const drops = chart('Drops', ['dropped', 'expired'], '/s')
  let before = null
  const tile = (label, value, note) => h('div', { class: 'tile' }, h('div', { class: 'label' }, label), h('div', { class: 'value' }, value), note ? h('div', { class: 'note' }, note) : null)

  const show = (view) => {
    const alive = view.members.filter((member) => member.alive)
    const reach = new Map(view.members.map((member) => [member.node, member.reaches]))
    fill(map, clusterMap(view.members, (from, to) => reach.get(from)?.includes(to) ?? true))
    fill(members, table('Members', [
      { label: 'Node', cell: (one) => h('span', {}, h('code', { class: 'mono address', title: one.node }, `…${one.node.slice(-6)}`), one.node === view.node ? h('span', { class: 'muted small' }, ' this one') : null) },
      { label: 'Role', cell: (one) => badge(one.alive ? one.role : 'down', one.alive ? (one.role === 'leader' ? 'info' : 'good') : 'bad') },
      { label: 'State', cell: (one) => (one.problem ? badge(one.problem, 'bad') : one.stage ? badge(one.acts === false ? 'frozen' : one.stage, one.acts === false || one.stage !== 'serving' ? 'warn' : 'good') : '–') },
      { label: 'Address', cell: (one) => h('code', { class: 'mono address' }, one.address) },
      { label: 'Sessions', number: true, cell: (one) => number(one.sessions) },
      { label: 'Lag', number: true, cell: (one) => (one.lag === undefined || one.lag === null ? h('span', { title: 'Only the leader knows' }, '–') : number(one.lag)) },
    ], view.members))
    fill(tiles,
      tile('Nodes', `${alive.length} of ${view.members.length}`, alive.length === view.members.length ? 'all up' : 'some are down'),
      tile('Sessions', number(view.members.reduce((sum, one) => sum + Number(one.sessions ?? 0), 0))),
      tile('Term', number(view.term), view.leader ? `leader …${view.leader.slice(-4)}` : 'no leader'),
      tile('Applied', number(view.applied), 'entries of the log'))
  }
  const measure = async () => {
    try {
      show(await call('cluster.list_members'))
    } catch (error) {
      fill(alarms, notice('bad', told(error)))
    }
    figures()
  }
  const figures = async () => {
    let now
    try { now = together(await call('cluster.metrics')) } catch { return }
    if (!now) return
    now.at = performance.now()
    // A node that was away or has begun anew would look like a burst.
    if (before && before.nodes === now.nodes) {
      const seconds = (now.at - before.at) / 1000
      const per = (name) => Math.max(0, (now[name] - before[name]) / seconds)
      throughput.add([per('in'), per('out')])
      drops.add([per('dropped'), per('expired')])
      const syncs = now.syncs - before.syncs
      latency.add([syncs > 0 ? (now.sync_us - before.sync_us) / syncs / 1000 : null])
    }
    before = now
  }
  const raised = async () => {
    try {
      const open = (await call('alarms.list')).alarms ?? []
      fill(alarms, open.length ? notice('warn', h('a', { href: '#/alarms' }, `${open.length} ${open.length === 1 ? 'alarm is' : 'alarms are'} raised`), `: ${open.map((one) => one.message).join('; ')}`) : null)
    } catch { /* The page of alarms says what is wrong. */ }
  }
  root.append(head('Overview'), h('div', { class: 'stack' }, alarms, tiles,
    h('div', { class: 'grid wide' }, card('Cluster', null, map), card('Members', null, members)),
    h('div', { class: 'grid' }, card('Throughput', null, throughput.place), card('Latency', null, latency.place), card('Drops', null, drops.place))))
  ctx.every(EVERY, measure)
  ctx.every(10_000, raised)
}
