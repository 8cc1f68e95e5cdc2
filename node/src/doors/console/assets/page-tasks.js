import { call } from './api.js'
import { fill, h } from './dom.js'
import { badge, button, dialog, field, form, head, paged, parsed, table, time } from './ui.js'

export const title = 'Batch tasks'

export const STATES = { Success: 'good', PartialSuccess: 'warn', Fail: 'bad', Processing: 'info', Waitting: 'warn', Initializing: 'info', Stopped: '', Stopping: 'warn' }

const TYPES = {
  createCommands: ['Send a command', '{\n  "service_id": "WaterMeter",\n  "command_name": "ON_OFF",\n  "paras": { "value": "ON" }\n}'],
  createMessages: ['Send a message', '{\n  "message": "hello"\n}'],
  updateDeviceShadows: ['Wish for properties', '{\n  "shadow": [{ "service_id": "WaterMeter", "desired": { "value": 1 } }]\n}'],
  updateDevices: ['Change devices', '{\n  "description": ""\n}'],
  freezeDevices: ['Freeze'], unfreezeDevices: ['Unfreeze'], deleteDevices: ['Delete devices'],
  firmwareUpgrade: ['Upgrade firmware', '{\n  "version": "",\n  "url": "https://"\n}'],
  softwareUpgrade: ['Upgrade software', '{\n  "version": "",\n  "url": "https://"\n}'],
}

export async function startTask(target, done) {
  const { products } = await call('products.list', { limit: 50 })
  dialog('Start a batch task', (close) => {
    const place = h('div')
    const choose = (type) => {
      const [, document] = TYPES[type]
      fill(place, form([
        { name: 'task_name', label: 'Name', required: true, pattern: '\\w{1,128}', value: `task_${Date.now().toString(36)}`, hint: 'Letters, digits and _' },
        target ? { name: 'targets', label: 'Devices', type: 'area', rows: 2, value: target, required: true } : { name: 'targets', label: 'Devices', type: 'area', rows: 3, hint: 'Ids, one a line. Or none, and a product:' },
        { name: 'product', label: 'All devices of', type: 'select', options: [['', '–'], ...products.map((one) => [one.product_id, one.name])] },
        document ? { name: 'document', label: 'What for each, as JSON', type: 'area', rows: 6, value: document } : null,
        { name: 'retry_count', label: 'Retries', type: 'number', min: 0, max: 5, value: 0 },
      ].filter(Boolean), 'Start', async (given) => {
        const body = { task_name: given.task_name, task_type: type }
        const targets = (given.targets ?? '').split(/[\s,]+/).filter(Boolean)
        if (targets.length) body.targets = targets
        else if (given.product) body.targets_filter = { product_id: given.product }
        if (document) body.document = parsed(given.document, 'document', {})
        if (given.retry_count) body.task_policy = { retry_count: given.retry_count, retry_interval: 1 }
        const made = await call('batch_tasks.create', { body })
        close()
        done(made)
      }, close))
    }
    const picker = field({ name: 'task_type', label: 'What to do', type: 'select', options: Object.entries(TYPES).map(([name, [label]]) => [name, label]) })
    picker.querySelector('select').addEventListener('change', (event) => choose(event.target.value))
    choose('createCommands')
    return h('div', { class: 'stack' }, picker, place)
  })
}

export async function render(root, ctx, _, query) {
  const list = paged(async (offset, limit) => {
    const { batchtasks, page } = await call('batch_tasks.list', { offset, limit })
    return { rows: batchtasks, count: page.count }
  }, (rows) => table('Batch tasks', [
    { label: 'Task', cell: (one) => h('a', { href: `#/task/${one.task_id}` }, one.task_name) },
    { label: 'Kind', cell: (one) => TYPES[one.task_type]?.[0] ?? one.task_type },
    { label: 'State', cell: (one) => badge(one.status.replace('Waitting', 'Waiting'), STATES[one.status]) },
    { label: 'Done', number: true, cell: (one) => (one.task_progress ? `${one.task_progress.success} of ${one.task_progress.total}` : '') },
    { label: 'Begun', cell: (one) => time(one.create_time) },
  ], rows, 'No task yet'))
  const start = (target) => startTask(target, (made) => { location.hash = `#/task/${made.task_id}` })
  root.append(head('Batch tasks', 'One thing for many devices, with what came of each.', ctx.may('operator') ? button('Start a task', () => start(), 'primary') : []), h('section', { class: 'card' }, list))
  await list.ready
  ctx.every(3000, () => list.reload())
  if (query.get('target') && ctx.may('operator')) await start(query.get('target'))
}
