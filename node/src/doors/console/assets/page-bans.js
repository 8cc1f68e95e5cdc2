import { call } from './api.js'
import { h } from './dom.js'
import { attempt, badge, button, formDialog, head, mono, number, sure, table, time } from './ui.js'
import { marked } from './page-sessions.js'

export const title = 'Bans'

const KINDS = { client_id: 'client id', user_name: 'user name', address: 'address' }
const kindOf = (ban) => Object.keys(KINDS).find((kind) => ban[kind] !== undefined && ban[kind] !== null && ban[kind] !== '')

export async function render(root, ctx) {
  let kind
  const list = marked(async (after) => {
    const said = await call('bans.list', { kind, after, limit: 50 })
    return { ...said, marker: said.next }
  }, (said) => [table('Bans', [
    { label: 'Who', cell: (one) => h('span', { class: 'row' }, badge(KINDS[kindOf(one)], 'plain'), mono(one[kindOf(one)])) },
    { label: 'Why', cell: (one) => one.reason || '–' },
    { label: 'Set by', cell: (one) => (one.automatic ? badge('flapping', 'warn') : one.by) },
    { label: 'Since', cell: (one) => time(one.since) },
    { label: 'Until', cell: (one) => (one.until ? time(one.until) : 'for ever') },
    { label: 'Tools', tools: true, cell: (one) => (ctx.may('operator') ? button('Lift', () => sure('Lift the ban?', `${one[kindOf(one)]} may connect again.`, 'Lift', async () => { await attempt(() => call('bans.delete', { [kindOf(one)]: one[kindOf(one)] })); list.reload() }), 'small') : null) },
  ], said.bans ?? [], 'Nobody is banned'), h('p', { class: 'muted small' }, `${number(said.count ?? 0)} in all`)])
  const add = () => formDialog('Ban somebody', [
    [{ name: 'kind', label: 'By', type: 'select', options: Object.entries(KINDS) }, { name: 'who', label: 'Which', required: true, hint: 'An address may be a network: 192.0.2.0/24' }],
    { name: 'reason', label: 'Why', maxlength: 512 },
    { name: 'for_s', label: 'For how long', type: 'select', options: [['', 'for ever'], ['600', 'ten minutes'], ['3600', 'an hour'], ['86400', 'a day'], ['604800', 'a week']] },
  ], 'Ban', async (given) => {
    await call('bans.create', { [given.kind]: given.who, reason: given.reason, for_s: given.for_s ? Number(given.for_s) : undefined })
    list.restart()
  })
  root.append(head('Bans', 'Who may not connect, on any node. Who is connected is cut at once.', ctx.may('operator') ? button('Ban somebody', add, 'primary') : []),
    h('section', { class: 'card' }, h('div', { class: 'bar' }, h('label', { class: 'field' }, h('span', {}, 'By'), h('select', { onchange: (event) => { kind = event.target.value || undefined; list.restart() } },
      h('option', { value: '' }, 'All'), Object.entries(KINDS).map(([value, text]) => h('option', { value }, text))))), list))
  await list.ready
}
