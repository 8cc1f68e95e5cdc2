import { call } from './api.js'
import { h } from './dom.js'
import { attempt, badge, button, card, empty, head, loaded, mono, table, time } from './ui.js'

export const title = 'Alarms'

const kind = (one) => badge(one.severity, one.severity === 'critical' ? 'bad' : 'warn')

export async function render(root, ctx) {
  const columns = [
    { label: 'Alarm', cell: (one) => h('span', { class: 'row' }, kind(one), h('strong', {}, one.name)) },
    { label: 'About', cell: (one) => (one.subject ? mono(one.subject) : 'the cluster') },
    { label: 'What', cell: (one) => one.message },
    { label: 'Since', cell: (one) => time(one.since) },
  ]
  const now = loaded(() => call('alarms.list'), (said) => table('Raised alarms', [...columns, {
    label: 'Tools', tools: true, cell: (one) => (ctx.may('operator') ? button('Clear', async () => { await attempt(() => call('alarms.clear', { name: one.name, subject: one.subject ?? '' })); now.reload(); past.reload() }, 'small') : null),
  }], said.alarms ?? [], empty('All is well', 'No alarm is raised.')))
  const past = loaded(() => call('alarms.list', { history: true }), (said) => table('Cleared alarms', [...columns,
    { label: 'Cleared', cell: (one) => h('span', {}, time(one.cleared), one.cleared_by ? ` by ${one.cleared_by}` : '') },
  ], said.alarms ?? [], 'None lately'))
  root.append(head('Alarms', 'What is wrong, for as long as it is. One that is cleared by hand is raised again if it is still so.'),
    h('div', { class: 'stack' }, card('Raised', null, now), card('Over', null, past)))
  await Promise.all([now.ready, past.ready])
  ctx.every(4000, () => Promise.all([now.reload(), past.reload()]))
}
