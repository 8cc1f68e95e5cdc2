import { call, watch } from './api.js'
import { append, fill, h } from './dom.js'
import { attempt, badge, button, card, copyButton, deviceBadge, empty, facts, formDialog, head, json, loaded, mono, notice, parsed, secrets, sure, table, tabs, time, told, clock } from './ui.js'
import { commandForm } from './command.js'
import { shown } from './mqtt.js'
import { bytesOf } from './page-retained.js'

export const title = 'Device'

const STATES = { PENDING: 'warn', DELIVERED: 'good', TIMEOUT: 'bad', FAILED: 'bad' }

function shadowCard(id, ctx, model) {
  const part = loaded(() => call('shadows.show', { device_id: id }), ({ shadow }) => (shadow?.length
    ? shadow.map((one) => h('div', { class: 'stack' }, h('h3', {}, one.service_id, ' ', badge(`version ${one.version}`, 'plain')),
        h('div', { class: 'grid' },
          h('div', {}, h('p', { class: 'muted small' }, 'Reported · ', time(one.reported?.event_time)), json(one.reported?.properties ?? {})),
          h('div', {}, h('p', { class: 'muted small' }, 'Desired · ', time(one.desired?.event_time)), json(one.desired?.properties ?? {})))))
    : empty('The device has no shadow yet', 'It grows from what the device reports and what is wished for it.')))
  const wish = () => formDialog('Wish for properties', [
    { name: 'service_id', label: 'Service', type: model.length ? 'select' : 'text', options: model.map((one) => one.service_id), required: true },
    { name: 'desired', label: 'Desired properties, as JSON', type: 'area', rows: 6, value: '{\n  \n}', required: true },
  ], 'Wish', async (given) => {
    await call('shadows.update', { device_id: id, body: { shadow: [{ service_id: given.service_id, desired: parsed(given.desired, 'desired', {}) }] } })
    part.reload()
  })
  ctx.every(6000, () => part.reload())
  return card('Shadow', ctx.may('operator') ? button('Wish for properties', wish, 'small') : null, part)
}

function messageCard(id, ctx) {
  const part = loaded(() => call('messages.list', { device_id: id }), ({ messages }) => table('Messages', [
    { label: 'Message', cell: (one) => mono(one.message_id) },
    { label: 'State', cell: (one) => badge(one.status.toLowerCase(), STATES[one.status]) },
    { label: 'Content', cell: (one) => h('span', { class: 'mono wrap' }, typeof one.message === 'string' ? one.message : JSON.stringify(one.message)) },
    { label: 'Made', cell: (one) => time(one.created_time) },
    { label: 'Tools', tools: true, cell: (one) => (ctx.may('operator') ? button('Delete', async () => { await attempt(() => call('messages.delete', { device_id: id, message_id: one.message_id })); part.reload() }, 'small') : null) },
  ], messages, 'No message is kept for this device'))
  const send = () => formDialog('Cache a message', [
    { name: 'message', label: 'Message', type: 'area', required: true, hint: 'It waits for the device until its time is over.' },
    [{ name: 'ttl', label: 'Minutes to live', type: 'number', min: 0, max: 1440, value: 1440 }, { name: 'name', label: 'Name' }],
    { name: 'topic', label: 'Custom topic', hint: 'One of the product’s, without its prefix. Empty: the system’s topic.' },
  ], 'Send', async (given) => {
    await call('messages.create', { device_id: id, body: given })
    part.reload()
  })
  ctx.every(5000, () => part.reload())
  return card('Messages', ctx.may('operator') ? button('Cache a message', send, 'primary small') : null, part)
}

/** What the device sends, as a trace of its own sees it come in. */
function uplinkCard(device, ctx) {
  const feed = h('ul', { class: 'feed', 'aria-label': 'Live uplink' })
  const state = h('p', { class: 'muted small', 'aria-live': 'polite' })
  let trace = null
  let close = () => {}
  const stop = (why) => {
    close()
    close = () => {}
    if (trace) call('traces.stop', { trace }).catch(() => {})
    trace = null
    toggle.textContent = 'Listen'
    state.textContent = why
  }
  const take = (hop) => {
    if (hop.stage !== 'in' || hop.client !== device.device_id) return
    feed.prepend(h('li', {}, h('div', { class: 'meta' }, h('time', { datetime: hop.at }, new Date(hop.at).toLocaleTimeString()), mono(hop.topic), hop.details?.qos ? badge(`QoS ${hop.details.qos}`, 'plain') : null),
      hop.payload ? h('code', { class: 'mono wrap' }, shown(bytesOf(hop.payload))) : null))
    while (feed.children.length > 200) feed.lastChild.remove()
  }
  const start = async () => {
    try {
      const made = await call('traces.start', { client: device.device_id, direction: 'send', seconds: 600, payload_bytes: 2048 })
      trace = made.trace
      if (!ctx.here()) { stop(''); return }
      toggle.textContent = 'Stop'
      state.textContent = 'Listening to what the device sends, for ten minutes.'
      close = watch('traces.follow', { trace }, take, (error) => stop(told(error)))
    } catch (error) {
      state.textContent = told(error)
    }
  }
  const toggle = button('Listen', () => (trace ? stop('Not listening.') : start()), 'small')
  state.textContent = 'Not listening.'
  ctx.onLeave(() => stop(''))
  return card('Live uplink', ctx.may('operator') ? toggle : null, state, feed)
}

export async function render(root, ctx, [id]) {
  const device = await call('devices.show', { device_id: id })
  const product = await call('products.show', { product_id: device.product_id }).catch(() => ({}))
  const model = product.service_capabilities ?? []
  const operator = ctx.may('operator')
  const status = h('span', { 'aria-live': 'polite' }, deviceBadge(device.status))
  const about = h('div')
  const show = (one) => {
    fill(status, deviceBadge(one.status))
    fill(about, facts([
      ['Device id', h('span', { class: 'copy' }, mono(one.device_id), copyButton(one.device_id))],
      ['Node id', mono(one.node_id)], ['Product', h('a', { href: `#/product/${encodeURIComponent(one.product_id)}` }, one.product_name || one.product_id)],
      ['Kind', one.node_type?.toLowerCase()], ['Gateway', one.gateway_id && one.gateway_id !== one.device_id ? h('a', { href: `#/device/${encodeURIComponent(one.gateway_id)}` }, one.gateway_id) : null],
      ['Firmware', one.fw_version], ['Software', one.sw_version], ['SDK', one.device_sdk_version],
      ['Created', time(one.create_time)], ['First seen', one.active_time ? time(one.active_time) : null],
      ['Status since', one.connection_status_update_time ? time(one.connection_status_update_time) : null],
      ['Signs in with', one.auth_info?.auth_type?.toLowerCase()], ['Description', one.description],
    ]))
  }
  show(device)
  const again = async () => { try { show(await call('devices.show', { device_id: id })) } catch { /* The next time tells. */ } }
  // What is told at once; and what is read now and then says the same where nobody tells.
  ctx.onLeave(watch('sessions.watch', { prefix: id }, (said) => { if (said.kind !== 'progress') again() }))
  ctx.every(3000, again)
  const frozen = () => device.status === 'FROZEN'
  const freeze = async () => {
    await attempt(() => call(frozen() ? 'devices.unfreeze' : 'devices.freeze', { device_id: id }))
    Object.assign(device, await call('devices.show', { device_id: id }))
    show(device)
    freezer.textContent = frozen() ? 'Unfreeze' : 'Freeze'
  }
  const freezer = button(frozen() ? 'Unfreeze' : 'Freeze', freeze)
  const reset = () => sure('Replace the secret?', 'The device signs in with the new one from its next connection on; the old one is void.', 'Replace', () => attempt(async () => {
    const made = await call('devices.action', { device_id: id, action_id: 'resetSecret', body: {} })
    secrets('The new secret', 'It is shown only now, and the old one is void.', [['Secret', made.secret]])
  }))
  const batch = () => { location.hash = `#/tasks?target=${encodeURIComponent(id)}` }
  const remove = () => sure('Delete the device?', `${id} and what is kept for it go for ever.`, 'Delete', async () => {
    if (await attempt(() => call('devices.delete', { device_id: id }), 'Deleted') !== undefined) location.hash = '#/devices'
  })
  root.append(
    h('div', { class: 'page-head' }, h('h1', {}, device.device_name || device.node_id), status, h('div', { class: 'actions' },
      h('a', { class: 'button', href: `#/why?client=${encodeURIComponent(id)}` }, 'Why?'),
      h('a', { class: 'button', href: `#/trace?client=${encodeURIComponent(id)}` }, 'Trace'),
      operator ? [button('Start a batch', batch), freezer, button('Replace secret', reset), button('Delete', remove, 'danger')] : null)),
    h('div', { class: 'grid wide' },
      h('div', { class: 'stack' }, card('About', null, about), shadowCard(id, ctx, model)),
      h('div', { class: 'stack' },
        operator ? card('Send a command', null, commandForm(id, model)) : null,
        messageCard(id, ctx), uplinkCard(device, ctx))))
}
