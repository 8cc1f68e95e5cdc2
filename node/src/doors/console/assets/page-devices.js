import { call } from './api.js'
import { h } from './dom.js'
import { button, card, deviceBadge, formDialog, head, mono, number, paged, search, secrets, table } from './ui.js'

export const title = 'Devices'

export function addDevice(products, done) {
  formDialog('Add a device', [
    { name: 'product_id', label: 'Product', type: 'select', required: true, options: products.map((one) => [one.product_id, `${one.name} (${one.product_id})`]) },
    { name: 'node_id', label: 'Node id', required: true, maxlength: 64, hint: 'What the device is known by itself: a serial number, a name' },
    { name: 'device_name', label: 'Name' },
    { name: 'description', label: 'Description' },
  ], 'Add', async (given) => {
    const made = await call('devices.add', { body: given })
    done(made)
    if (made.auth_info?.secret) {
      secrets('The device was added', 'Its secret is shown only now. It cannot be read again, only replaced.', [['Device id', made.device_id], ['Secret', made.auth_info.secret]])
    }
  })
}

export async function render(root, ctx) {
  const { products } = await call('products.list', { limit: 50 })
  const filter = {}
  const list = paged(async (offset, limit) => {
    const { devices, page } = await call('devices.list', { ...filter, limit, offset })
    return { rows: devices, count: page.count }
  }, (rows) => table('Devices', [
    { label: 'Device', cell: (one) => h('a', { href: `#/device/${encodeURIComponent(one.device_id)}` }, one.device_id) },
    { label: 'Name', cell: (one) => one.device_name || one.node_id },
    { label: 'Product', cell: (one) => one.product_name || mono(one.product_id) },
    { label: 'Status', cell: (one) => deviceBadge(one.status) },
  ], rows, 'No device is called so'))
  const set = (name) => (value) => { if (value) filter[name] = value; else delete filter[name]; list.restart() }
  root.append(
    head('Devices', null, ctx.may('operator') ? button('Add a device', () => addDevice(products, () => list.reload()), 'primary') : []),
    h('section', { class: 'card' },
      h('div', { class: 'bar' }, search('Device name begins with', set('device_name')),
        h('label', { class: 'field' }, h('span', {}, 'Product'), h('select', { onchange: (event) => set('product_id')(event.target.value) },
          h('option', { value: '' }, 'All'), products.map((one) => h('option', { value: one.product_id }, one.name)))),
        h('label', { class: 'field' }, h('span', {}, 'Node id'), h('input', { onchange: (event) => set('node_id')(event.target.value.trim()) }))),
      list))
  await list.ready
  ctx.every(5000, () => list.reload())
}
