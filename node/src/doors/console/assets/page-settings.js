import { call } from './api.js'
import { h } from './dom.js'
import { attempt, badge, button, card, formDialog, head, loaded, mono, table, time } from './ui.js'

export const title = 'Settings'

const shown = (value) => (value === undefined || value === null ? h('span', { class: 'muted' }, 'as configured') : mono(String(value)))

function read(setting, text) {
  if (setting.type === 'number') return Number(text)
  return setting.type === 'flag' ? text === 'true' : text ?? ''
}

export async function render(root, ctx) {
  let version
  const again = () => { list.reload(); history.reload() }
  const edit = (one) => formDialog(one.name, [{
    name: 'value', label: one.description || 'Value', required: one.type !== 'text', value: String(one.value ?? one.default ?? ''),
    ...(one.type === 'flag' ? { type: 'select', options: ['true', 'false'] } : one.type === 'number' ? { type: 'number', min: one.min, max: one.max, hint: one.max === undefined ? undefined : `${one.min ?? 0} to ${one.max}` } : {}),
  }], 'Set', async ({ value }) => { await call('settings.set', { name: one.name, value: read(one, value), version }); again() })
  const list = loaded(() => call('settings.list'), (said) => {
    version = said.version ?? 0
    return [table('Settings', [
      { label: 'Setting', cell: (one) => h('span', {}, mono(one.name), h('span', { class: 'muted small' }, h('br'), one.description)) },
      { label: 'Is', cell: (one) => (one.value === undefined || one.value === null ? badge('not set', 'plain') : shown(one.value)) },
      { label: 'Otherwise', cell: (one) => shown(one.default) },
      { label: 'Tools', tools: true, cell: (one) => (ctx.may('admin') ? h('span', { class: 'row' }, button('Set', () => edit(one), 'small'),
        one.value === undefined || one.value === null ? null : button('Reset', async () => { await attempt(() => call('settings.reset', { name: one.name, version })); again() }, 'small')) : null) },
    ], said.settings ?? []), h('p', { class: 'muted small' }, `Version ${version}`)]
  })
  const history = loaded(() => call('settings.history'), (said) => table('Changes', [
    { label: 'Version', number: true, cell: (one) => one.version }, { label: 'When', cell: (one) => time(one.at) }, { label: 'Who', cell: (one) => one.by },
    { label: 'Setting', cell: (one) => mono(one.name) }, { label: 'From', cell: (one) => shown(one.from) }, { label: 'To', cell: (one) => shown(one.to) },
  ], said.changes ?? [], 'Nothing was ever changed'))
  root.append(head('Settings', 'The same on every node, and in force at once. What is not set is as the configuration file of each node says.'),
    h('div', { class: 'stack' }, card('Now', null, list), card('History', null, history)))
  await Promise.all([list.ready, history.ready])
}
