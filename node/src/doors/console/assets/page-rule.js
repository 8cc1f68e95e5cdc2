import { call } from './api.js'
import { fill, h } from './dom.js'
import { attempt, badge, button, card, dialog, empty, facts, field, form, head, json, loaded, mono, notice, number, parsed, sure, table, time, told, values } from './ui.js'
import { editor, mistake } from './editor.js'

export const title = 'Rule'

const SUBJECTS = ['device.property report', 'device.message report', 'device.message.status update', 'device.status update', 'device create', 'device update', 'device delete', 'device.command.status update', 'product create', 'product update', 'product delete', 'batchtask update']

const SAMPLE = {
  resource: 'device.property', event: 'report', event_time: '20260101T120000Z',
  notify_data: {
    header: { device_id: 'meter', product_id: 'demohuawei', app_id: '', gateway_id: 'meter', node_id: 'meter', tags: [] },
    body: { services: [{ service_id: 'WaterMeter', properties: { value: 21.5 }, event_time: '20260101T120000Z' }] },
  },
}

/** Where what a rule makes can go, and what must be said of it. */
const CHANNELS = {
  MQTT_FORWARDING: ['Applications, over MQTT', 'mqtt_forwarding', [{ name: 'topic', label: 'Topic', required: true, hint: 'Letters, digits, _, / and -' }]],
  MQTT_DEVICE_FORWARDING: ['Devices, over MQTT', 'mqtt_device_forwarding', [{ name: 'topic', label: 'Topic', required: true, hint: '$topic() is the topic that the event came on' }, { name: 'ttl', label: 'Minutes to live', type: 'number', min: 0, max: 1440, step: 5, value: 0 }]],
  HTTP_FORWARDING: ['A web server', 'http_forwarding', [{ name: 'url', label: 'URL', type: 'url', required: true }, { name: 'token', label: 'Token to sign with', type: 'password', autocomplete: 'new-password' }, { name: 'cert_id', label: 'Certificate id' }, { name: 'signature_enable', label: 'Sign requests', type: 'check' }]],
  DMS_KAFKA_FORWARDING: ['Kafka', 'dms_kafka_forwarding', [{ name: 'addresses', label: 'Brokers', required: true, hint: 'host:port, separated by commas' }, { name: 'topic', label: 'Topic', required: true }, { name: 'username', label: 'User' }, { name: 'password', label: 'Password', type: 'password', autocomplete: 'new-password' }, { name: 'mechanism', label: 'Mechanism', type: 'select', options: ['', 'PLAIN', 'SCRAM-SHA-512'] }, { name: 'security_protocol', label: 'Security protocol', type: 'select', options: ['', 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL'] }]],
  MQTT_REPUBLISHING: ['A topic of this router', 'mqtt_republishing', [{ name: 'topic', label: 'Topic', required: true }, { name: 'qos', label: 'QoS', type: 'select', options: ['0', '1', '2'], value: '1' }]],
}

function detailOf(channel, given) {
  const [, member] = CHANNELS[channel]
  const { channel: _, ...detail } = given
  if (typeof detail.addresses === 'string') {
    detail.addresses = detail.addresses.split(',').map((one) => {
      const [, host, port] = /^\s*\[?(.*?)\]?:(\d+)\s*$/.exec(one) ?? [null, one.trim(), '9092']
      return /^[\d.]+$|:/.test(host) ? { ip: host, port: Number(port) } : { domain: host, port: Number(port) }
    })
  }
  if (detail.qos !== undefined) detail.qos = Number(detail.qos)
  return { [member]: detail }
}

function shown(action) {
  const detail = Object.values(action.channel_detail)[0] ?? {}
  if (detail.addresses) return `${detail.addresses.map((one) => `${one.ip ?? one.domain}:${one.port}`).join(', ')} · ${detail.topic}`
  return detail.topic ?? detail.url ?? ''
}

function editAction(rule, action, done) {
  const old = action ? Object.values(action.channel_detail)[0] ?? {} : {}
  dialog(action ? 'Change the target' : 'Add a target', (close) => {
    const place = h('div')
    const choose = (channel) => {
      const fields = CHANNELS[channel][2].map((one) => {
        let value = channel === action?.channel && old[one.name] !== undefined ? old[one.name] : one.value
        if (Array.isArray(value)) value = value.map((at) => `${at.ip ?? at.domain}:${at.port}`).join(', ')
        return { ...one, value }
      })
      fill(place, form(fields, action ? 'Change' : 'Add', async (given) => {
        const body = { channel, channel_detail: detailOf(channel, given) }
        if (action) await call('rules.update_action', { action_id: action.action_id, body })
        else await call('rules.create_action', { body: { rule_id: rule, ...body } })
        close()
        done()
      }, close))
    }
    const first = action?.channel ?? 'MQTT_FORWARDING'
    const picker = field({ name: 'channel', label: 'Goes to', type: 'select', options: Object.entries(CHANNELS).map(([name, [label]]) => [name, label]), value: first })
    picker.querySelector('select').addEventListener('change', (event) => choose(event.target.value))
    choose(first)
    return h('div', { class: 'stack' }, picker, place)
  })
}

function targets(rule, ctx, counters) {
  const part = loaded(() => call('rules.list_actions', { rule_id: rule, limit: 50 }), ({ actions }) => table('Forwarding targets', [
    { label: 'Goes to', cell: (one) => CHANNELS[one.channel]?.[0] ?? one.channel },
    { label: 'Where', cell: (one) => mono(shown(one)) },
    { label: 'Tools', tools: true, cell: (one) => h('span', { class: 'row' },
      button('Edit', () => editAction(rule, one, () => part.reload()), 'small'),
      button('Delete', () => sure('Delete the target?', 'What waits for it goes with it.', 'Delete', async () => { await attempt(() => call('rules.delete_action', { action_id: one.action_id })); part.reload(); counters.reload() }), 'small danger')) },
  ], actions, empty('No target yet', 'What the rule makes goes nowhere until it has one.')))
  return card('Forwarding targets', button('Add a target', () => editAction(rule, null, () => { part.reload(); counters.reload() }), 'small'), part)
}

function counters(rule) {
  return loaded(() => call('rules.status', { rule_id: rule }), (status) => [
    status.active ? h('div', { class: 'tiles' }, [['Matched', status.matched], ['Not matched', status.unmatched], ['Failed', status.failed], ['Waiting', status.waiting]].map(([label, value]) =>
      h('div', { class: 'tile' }, h('div', { class: 'label' }, label), h('div', { class: 'value', 'data-counter': label }, number(value))))) : notice('', 'The rule is inactive: it counts nothing.'),
    h('p', { class: 'muted small' }, 'On node ', mono(status.node_id), '; backlogs are the cluster’s.'),
    status.last_error ? notice('bad', status.last_error.message, ' · ', time(status.last_error.time)) : null,
    status.actions.length ? table('Counters of the targets', [
      { label: 'Target', cell: (one) => CHANNELS[one.channel]?.[0] ?? one.channel },
      { label: 'Passed', number: true, cell: (one) => number(one.passed ?? one.backlog?.settled) },
      { label: 'Refused', number: true, cell: (one) => number(one.refused ?? one.backlog?.refused) },
      { label: 'Retried', number: true, cell: (one) => number(one.retried) },
      { label: 'Backlog', number: true, cell: (one) => number(one.backlog?.entries ?? one.waiting) },
    ], status.actions) : null,
  ])
}

function tester(where, select, marking, ctx) {
  const result = h('div', { class: 'stack', 'aria-live': 'polite', 'data-result': true })
  const sample = h('textarea', { name: 'event', rows: 12, spellcheck: 'false' })
  sample.value = JSON.stringify(SAMPLE, null, 2)
  const run = () => marking(async () => {
    fill(result)
    const tried = await call('rules.test_texts', { body: { where: where.value, select: select.value, event: parsed(sample.value, 'The sample event', {}) } })
    fill(result, h('div', { class: 'row' }, badge(tried.matched ? 'matches' : 'does not match', tried.matched ? 'good' : 'warn')),
      tried.error ? notice('warn', tried.error) : null, tried.matched ? json(tried.output) : null)
  })
  return card('Test', ctx.may('operator') ? button('Test with the sample', run, 'small') : null,
    h('label', { class: 'field' }, h('span', {}, 'Sample event'), sample), result)
}

export async function render(root, ctx, [id]) {
  const fresh = id === 'new'
  const rule = fresh ? { rule_name: '', select: '', where: '', subject: { resource: 'device.property', event: 'report' }, guarantee: 'live', active: false } : await call('rules.show', { rule_id: id })
  const problem = h('div', { 'aria-live': 'polite' })
  const where = editor({ name: 'where', label: 'Where', value: rule.where, hint: 'Empty: every event. For example: notify_data.body.services[0].properties.value > 20' })
  const select = editor({ name: 'select', label: 'Select', value: rule.select, hint: 'Empty: the whole event. For example: notify_data.header.device_id AS device, notify_data.body.services[0].properties.value AS value' })
  const name = field({ name: 'rule_name', label: 'Name', value: rule.rule_name, maxlength: 256 })
  const subject = field({ name: 'subject', label: 'Listens to', type: 'select', options: SUBJECTS.includes(`${rule.subject.resource} ${rule.subject.event}`) ? SUBJECTS : [`${rule.subject.resource} ${rule.subject.event}`, ...SUBJECTS], value: `${rule.subject.resource} ${rule.subject.event}` })
  const guarantee = field({ name: 'guarantee', label: 'Guarantee', type: 'select', options: [['live', 'live: fast, kept in memory'], ['durable', 'durable: replicated before it is acknowledged']], value: rule.guarantee })
  if (!fresh) for (const one of [subject, guarantee]) one.querySelector('select').disabled = true
  /** Runs a call, and underlines what it finds wrong. */
  const marking = async (task) => {
    fill(problem)
    where.clear()
    select.clear()
    try {
      await task()
      return true
    } catch (error) {
      const found = mistake(error.message)
      if (found) (found.member === 'where' ? where : select).mark(found.column, found.problem)
      else fill(problem, notice('bad', told(error)))
      return false
    }
  }
  const save = async (event) => {
    event.preventDefault()
    const given = values(edit)
    const body = { rule_name: given.rule_name ?? '', select: select.value, where: where.value }
    await marking(async () => {
      if (fresh) {
        const [resource, on] = given.subject.split(' ')
        const made = await call('rules.create', { body: { ...body, subject: { resource, event: on }, guarantee: given.guarantee } })
        location.hash = `#/rule/${made.rule_id}`
      } else {
        await call('rules.update', { rule_id: id, body })
        fill(problem, notice('good', 'Saved.'))
      }
    })
  }
  const operator = ctx.may('operator')
  const edit = h('form', { class: 'fields', onsubmit: save }, name, h('div', { class: 'pair' }, subject, guarantee), where.place, select.place, problem,
    operator ? h('div', { class: 'buttons' }, h('button', { class: 'button primary' }, fresh ? 'Make the rule' : 'Save')) : null)
  const state = h('span')
  const toggle = button('', async () => {
    const said = await attempt(() => call('rules.update', { rule_id: id, body: { active: !rule.active } }))
    if (said) { rule.active = said.active; showState(); figures.reload() }
  }, 'primary')
  const showState = () => { fill(state, badge(rule.active ? 'active' : 'inactive', rule.active ? 'good' : '')); toggle.textContent = rule.active ? 'Stop' : 'Start' }
  const remove = () => sure('Delete the rule?', 'Its targets, and what waits for them, go with it.', 'Delete', async () => {
    if (await attempt(() => call('rules.delete', { rule_id: id }), 'Deleted') !== undefined) location.hash = '#/rules'
  })
  const figures = fresh ? null : counters(id)
  if (!fresh) showState()
  root.append(
    h('div', { class: 'page-head' }, h('h1', {}, fresh ? 'A new rule' : rule.rule_name || rule.rule_id), fresh ? null : state,
      operator && !fresh ? h('div', { class: 'actions' }, h('a', { class: 'button', href: `#/trace?rule=${id}` }, 'Trace'), toggle, button('Delete', remove, 'danger')) : null),
    h('div', { class: 'grid wide' },
      h('div', { class: 'stack' }, card('Condition and selection', null, edit), fresh || !operator ? null : targets(id, ctx, figures)),
      h('div', { class: 'stack' }, fresh ? null : card('Counters', null, figures), tester(where, select, marking, ctx))))
  if (!fresh) ctx.every(2000, () => figures.reload())
}
