import { call } from './api.js'
import { h } from './dom.js'
import { badge, button, card, copyButton, empty, facts, head, mono, notice, table } from './ui.js'
import { presetCredential } from './page-rules.js'

export const title = 'Access details'

const url = (one, path = '') => `${one.scheme}://${one.host.includes(':') ? `[${one.host}]` : one.host}:${one.port}${path}`
const SAFE = { mqtts: 1, wss: 1, https: 1 }

function place(name, about, list, path, more) {
  return card(name, more, about ? h('p', { class: 'muted small' }, about) : null, table(name, [
    { label: 'Address', cell: (one) => h('span', { class: 'copy' }, mono(url(one, path)), copyButton(url(one, path))) },
    { label: 'Protection', cell: (one) => badge(SAFE[one.scheme] ? 'TLS' : 'plain', SAFE[one.scheme] ? 'good' : 'warn') },
    { label: 'Listener', cell: (one) => one.name },
  ], list, empty('None on this node', 'No listener of this node’s configuration serves it.')))
}

export async function render(root, ctx) {
  const said = await call('access.details', { host: location.hostname.replace(/^\[|\]$/g, '') })
  const of = (...schemes) => said.addresses.filter((one) => schemes.includes(one.scheme))
  const speaks = (...dialects) => (one) => one.dialects.some((dialect) => dialects.includes(dialect))
  const serves = (role) => (one) => one.roles.includes(role)
  const certificate = () => {
    const link = h('a', { href: URL.createObjectURL(new Blob([said.root_certificate], { type: 'application/x-pem-file' })), download: 'fulmar-root.pem' })
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
  }
  root.append(
    head('Access details', 'Where devices, applications and programs reach this node.'),
    h('div', { class: 'stack' },
      h('div', { class: 'grid' },
        card('This cluster', null, facts([
          ['Project id', h('span', { class: 'copy' }, mono(said.project_id), copyButton(said.project_id))],
          ['Instance id', said.instance_id ? h('span', { class: 'copy' }, mono(said.instance_id), copyButton(said.instance_id)) : 'any: none is configured'],
        ])),
        card('Root certificate', null, h('div', { class: 'stack' }, h('p', { class: 'small muted' }, 'What clients verify the addresses with TLS against.'),
          said.root_certificate ? h('div', {}, button('Download the root certificate', certificate, 'primary')) : notice('', 'This node’s configuration names none (rest.root_certificate): it is signed by an authority that clients know, or handed out elsewhere.')))),
      place('Devices', 'MQTT 3.1, 3.1.1 and 5.', of('mqtt', 'mqtts').filter(speaks('huawei', 'aliyun', 'tencent', 'sensoro', 'generic'))),
      place('Applications', 'What rules push is taken here, by accessKey and accessCode.', of('mqtt', 'mqtts').filter(speaks('application')), '', ctx.may('admin') ? button('Preset Access Credential', presetCredential, 'small') : null),
      place('MQTT over WebSocket', null, of('ws', 'wss'), '/mqtt'),
      place('Device authentication', 'Where devices get their credentials over HTTP.', of('http', 'https').filter(serves('device_auth'))),
      place('API', `The REST API: /v5/iot/${said.project_id}/…, described at /openapi.json.`, of('http', 'https').filter(serves('api'))),
      place('Console', null, of('http', 'https').filter(serves('console')), '/console/')))
}
