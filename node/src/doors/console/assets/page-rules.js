import { call } from './api.js'
import { h } from './dom.js'
import { badge, button, card, formDialog, head, mono, notice, paged, search, secrets, table } from './ui.js'

export const title = 'Rules'

/** Asks for the access code of applications: shown once, and the old one stops. */
export function presetCredential() {
  formDialog('Preset Access Credential', [
    { name: 'type', label: 'Protocol', type: 'select', options: ['MQTT'] },
    { name: 'force_disconnect', label: 'Close the connections of the old one at once', type: 'check' },
  ], 'Make a new credential', async (given) => {
    const made = await call('apps.create_access_code', { body: given })
    secrets('The access credential', 'This is shown only now. The accessKey of before has stopped: applications that use it cannot connect any more, and need these.', [['accessKey', made.access_key], ['accessCode', made.access_code]])
  }, notice('warn', 'Applications sign in with an accessKey and an accessCode. When a new pair is made, the old accessKey stops working.'))
}

export async function render(root, ctx) {
  const filter = {}
  const list = paged(async (offset, limit) => {
    const { rules, count } = await call('rules.list', { ...filter, offset, limit })
    return { rows: rules, count }
  }, (rows) => table('Rules', [
    { label: 'Rule', cell: (one) => h('a', { href: `#/rule/${one.rule_id}` }, one.rule_name || one.rule_id) },
    { label: 'Listens to', cell: (one) => `${one.subject.resource} ${one.subject.event}` },
    { label: 'Where', cell: (one) => (one.where ? mono(one.where) : h('span', { class: 'muted' }, 'always')) },
    { label: 'State', cell: (one) => badge(one.active ? 'active' : 'inactive', one.active ? 'good' : '') },
    { label: 'Guarantee', cell: (one) => one.guarantee },
  ], rows, 'There is no such rule'))
  root.append(
    head('Rules', 'What happens to what devices say: a condition, a selection, and where it goes.', [
      ctx.may('admin') ? button('Preset Access Credential', presetCredential) : null,
      ctx.may('operator') ? h('a', { class: 'button primary', href: '#/rule/new' }, 'Write a rule') : null,
    ]),
    h('section', { class: 'card' }, h('div', { class: 'bar' }, search('Rule name', (text) => { if (text) filter.rule_name = text; else delete filter.rule_name; list.restart() })), list))
  await list.ready
}
