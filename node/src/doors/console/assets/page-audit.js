import { call } from './api.js'
import { h } from './dom.js'
import { badge, head, mono, search, table, time } from './ui.js'
import { marked } from './page-sessions.js'

export const title = 'Audit'

export async function render(root) {
  const filter = {}
  const list = marked(async (before) => {
    const said = await call('audit.list', { ...filter, before, limit: 50 })
    return { ...said, marker: said.next }
  }, (said) => table('Audit', [
    { label: 'When', cell: (one) => time(one.at) },
    { label: 'Who', cell: (one) => h('span', {}, one.user || '–', one.role ? h('span', { class: 'muted' }, ` ${one.role}`) : null) },
    { label: 'What', cell: (one) => mono(one.operation) },
    { label: 'About', cell: (one) => h('span', { class: 'mono wrap' }, one.about) },
    { label: 'Result', cell: (one) => badge(String(one.status), one.status < 300 ? 'good' : 'bad') },
    { label: 'From', cell: (one) => h('span', { class: 'small' }, `${one.address} · ${one.door}`) },
  ], said.entries ?? [], 'Nothing was changed yet'))
  const set = (name) => (text) => { if (text) filter[name] = text; else delete filter[name]; list.restart() }
  root.append(head('Audit', 'Who has changed what, or tried to.'), h('section', { class: 'card' },
    h('div', { class: 'bar' }, search('Call begins with, as in devices.', set('operation')), h('label', { class: 'field' }, h('span', {}, 'User'), h('input', { onchange: (event) => set('user')(event.target.value.trim()) }))), list))
  await list.ready
}
