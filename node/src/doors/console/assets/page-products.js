import { call } from './api.js'
import { h } from './dom.js'
import { button, badge, formDialog, head, mono, paged, parsed, secrets, table, time } from './ui.js'

export const title = 'Products'

const MODEL = '[{\n  "service_id": "Example",\n  "properties": [{ "property_name": "value", "data_type": "decimal", "method": "RW" }],\n  "commands": [{ "command_name": "SWITCH", "paras": [{ "para_name": "value", "data_type": "string", "enum_list": ["ON", "OFF"] }] }]\n}]'

export async function render(root, ctx) {
  const list = paged(async (offset, limit) => {
    const { products, page } = await call('products.list', { offset, limit })
    return { rows: products, count: page.count }
  }, (rows) => table('Products', [
    { label: 'Product', cell: (one) => h('a', { href: `#/product/${encodeURIComponent(one.product_id)}` }, one.name || one.product_id) },
    { label: 'Id', cell: (one) => mono(one.product_id) },
    { label: 'Dialect', cell: (one) => badge(one.dialect, 'plain') },
    { label: 'Registration', cell: (one) => one.dynamic_registration || 'off' },
    { label: 'Created', cell: (one) => time(one.create_time) },
  ], rows, 'There is no product yet'))
  const add = () => formDialog('Add a product', [
    [{ name: 'name', label: 'Name', required: true }, { name: 'dialect', label: 'Dialect', type: 'select', options: ['huawei', 'aliyun', 'tencent'] }],
    [{ name: 'device_type', label: 'Device type', value: 'Device' }, { name: 'product_id', label: 'Product id', hint: 'Empty: one is made.' }],
    { name: 'service_capabilities', label: 'Model: services with properties and commands, as JSON', type: 'area', rows: 8, value: MODEL },
  ], 'Add', async (given) => {
    const body = { ...given, protocol_type: 'MQTT', data_format: 'json', service_capabilities: parsed(given.service_capabilities, 'The model', []) }
    const made = await call('products.create', { body })
    list.reload()
    if (made.product_secret) secrets('The product was added', 'Its secret is shown only now.', [['Product secret', made.product_secret]])
  })
  root.append(head('Products', 'What devices are of: their dialect, their model, the topics that are theirs.', ctx.may('operator') ? button('Add a product', add, 'primary') : []),
    h('section', { class: 'card' }, list))
  await list.ready
}
