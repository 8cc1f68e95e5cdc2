import { call } from './api.js'
import { h } from './dom.js'
import { attempt, badge, button, card, empty, facts, formDialog, head, json, mono, parsed, sure, table, tabs, time } from './ui.js'

export const title = 'Product'

export async function render(root, ctx, [id]) {
  const [product, { topics }] = await Promise.all([call('products.show', { product_id: id }), call('products.topics', { product_id: id })])
  const model = product.service_capabilities ?? []
  const again = () => { root.replaceChildren(); return render(root, ctx, [id]) }
  const edit = () => formDialog('Change the product', [
    { name: 'name', label: 'Name', value: product.name, required: true },
    { name: 'description', label: 'Description', value: product.description },
    { name: 'dynamic_registration', label: 'Devices that register themselves', type: 'select', options: ['off', 'known', 'open'], value: product.dynamic_registration },
    { name: 'service_capabilities', label: 'Model, as JSON', type: 'area', rows: 12, value: JSON.stringify(model, null, 2) },
  ], 'Change', async (given) => {
    await call('products.update', { product_id: id, body: { ...given, service_capabilities: parsed(given.service_capabilities, 'The model', []) } })
    await again()
  })
  const editTopics = () => formDialog('Custom topics', [
    { name: 'topics', label: 'Topics, as JSON', type: 'area', rows: 8, value: JSON.stringify(topics, null, 2), hint: 'access: pub, sub or all' },
  ], 'Change', async (given) => { await call('products.set_topics', { product_id: id, body: { topics: parsed(given.topics, 'topics', []) } }); await again() })
  const remove = () => sure('Delete the product?', `${product.name} goes for ever. It must have no devices.`, 'Delete', async () => {
    if (await attempt(() => call('products.delete', { product_id: id }), 'Deleted') !== undefined) location.hash = '#/products'
  })
  root.append(
    head(product.name || id, product.description, ctx.may('operator') ? [button('Change', edit), button('Delete', remove, 'danger')] : []),
    h('div', { class: 'stack' },
      h('div', { class: 'grid' },
        card('About', null, facts([['Product id', mono(product.product_id)], ['Dialect', product.dialect], ['Device type', product.device_type], ['Data format', product.data_format], ['Application', product.app_name], ['Registration', product.dynamic_registration], ['Created', time(product.create_time)]])),
        card('Custom topics', ctx.may('operator') ? button('Change', editTopics, 'small') : null, table('Custom topics', [
          { label: 'Topic', cell: (one) => mono(one.topic) }, { label: 'Access', cell: (one) => ({ pub: 'publish', sub: 'subscribe', all: 'both' })[one.access] },
        ], topics, 'No custom topics'))),
      model.length ? model.map((service) => card(service.service_id, null,
        h('div', { class: 'grid' },
          h('div', {}, h('h3', {}, 'Properties'), table('Properties', [
            { label: 'Property', cell: (one) => one.property_name }, { label: 'Type', cell: (one) => one.data_type }, { label: 'Access', cell: (one) => one.method ?? '' }, { label: 'Unit', cell: (one) => one.unit ?? '' },
          ], service.properties ?? [], 'None')),
          h('div', {}, h('h3', {}, 'Commands'), table('Commands', [
            { label: 'Command', cell: (one) => one.command_name }, { label: 'Parameters', cell: (one) => (one.paras ?? []).map((para) => `${para.para_name}: ${para.enum_list?.join(' | ') ?? para.data_type}`).join(', ') || '–' },
          ], service.commands ?? [], 'None'))))) : card('Model', null, empty('No model', 'Devices of this product say what they like.'))))
}
