import { call } from './api.js'
import { h } from './dom.js'
import { attempt, badge, button, card, copyButton, facts, formDialog, head, loaded, mono, notice, secrets, sure, time } from './ui.js'

export const title = 'Sensoro app'

function settings(app = {}) {
  return [
    { name: 'callback_url', label: 'Callback URL', type: 'url', value: app.callback_url, hint: 'Where records are sent by HTTP; empty: nowhere' },
    { name: 'qos', label: 'QoS', type: 'select', options: [['0', '0 (default)'], ['1', '1']], value: String(app.qos ?? 0) },
    { name: 'safe_mode', label: 'Safe mode: records are encrypted with the AppKey', type: 'check', value: app.safe_mode },
  ]
}

const read = (given) => ({ qos: Number(given.qos ?? 0), safe_mode: given.safe_mode, callback_url: given.callback_url ?? '' })

function showSecrets(app) {
  const pairs = [['AppID', app.app_id], ['AppSecret', app.app_secret], ['AppKey', app.app_key]].filter(([, value]) => value)
  secrets('The secrets of the app', 'They are shown only now. They cannot be read again, only replaced.', pairs)
}

export async function render(root, ctx) {
  const operator = ctx.may('operator')
  const part = loaded(() => call('sensoro.list'), ({ sensoro_apps: apps }) => (apps.length ? apps.map((app) => card(app.app_id,
    operator ? [
      button('Settings', () => formDialog(`Settings of ${app.app_id}`, settings(app), 'Change', async (given) => { await call('sensoro.update', { sensoro_app_id: app.app_id, body: read(given) }); part.reload() }), 'small'),
      button('Rotate AppSecret', () => sure('Rotate the AppSecret?', 'The old one stops at once: clients that use it cannot sign in any more.', 'Rotate', () => attempt(async () => showSecrets({ app_id: app.app_id, ...await call('sensoro.rotate_secret', { sensoro_app_id: app.app_id }) }))), 'small'),
      button('Delete', () => sure('Delete the app?', `${app.app_id} and its bindings go for ever.`, 'Delete', async () => { await attempt(() => call('sensoro.delete', { sensoro_app_id: app.app_id })); part.reload() }), 'small danger'),
    ] : null,
    facts([
      ['AppID', h('span', { class: 'copy' }, mono(app.app_id), copyButton(app.app_id))],
      ['AppSecret', h('span', { class: 'muted' }, 'was shown once, when it was made')],
      ['QoS', String(app.qos ?? 0)],
      ['Safe mode', badge(app.safe_mode ? 'on' : 'off', app.safe_mode ? 'good' : '')],
      ['Callback URL', app.callback_url ? mono(app.callback_url) : 'none'],
      ['Created', time(app.create_time)],
    ]))) : notice('', 'There is no app yet.')))
  const add = () => formDialog('Issue an app', [{ name: 'app_id', label: 'AppID', hint: 'Empty: one is made.' }, ...settings()], 'Issue', async (given) => {
    const made = await call('sensoro.create', { body: { ...read(given), ...(given.app_id ? { app_id: given.app_id } : {}) } })
    part.reload()
    showSecrets(made)
  })
  root.append(head('Sensoro app', 'What applications of Sensoro’s sign in with, and where their records go.', operator ? button('Issue an app', add, 'primary') : []), part)
  await part.ready
}
