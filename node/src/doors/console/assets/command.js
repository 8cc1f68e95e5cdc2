// A form for a device's commands, made of its product's model.

import { call } from './api.js'
import { fill, h } from './dom.js'
import { badge, field, form, json, notice, parsed } from './ui.js'

function parameter(one) {
  const name = one.para_name
  const hint = [one.description, one.unit && `in ${one.unit}`, one.min !== undefined && one.max !== undefined && `${one.min} to ${one.max}`].filter(Boolean).join(', ')
  const common = { name: `p:${name}`, label: one.required ? `${name} (required)` : name, required: one.required, hint: hint || undefined }
  if (one.enum_list?.length) return { ...common, type: 'select', options: one.required ? one.enum_list : ['', ...one.enum_list], value: one.required ? undefined : one.enum_list[0] }
  switch (one.data_type) {
    case 'int': case 'integer': case 'long': return { ...common, type: 'number', step: 1, min: one.min, max: one.max }
    case 'decimal': case 'double': case 'float': return { ...common, type: 'number', step: 'any', min: one.min, max: one.max }
    case 'boolean': case 'bool': return { ...common, type: 'select', options: one.required ? ['true', 'false'] : ['', 'true', 'false'] }
    case 'jsonObject': case 'json': case 'object': case 'string list': case 'stringList': case 'array': return { ...common, type: 'area', hint: hint || 'As JSON' }
    default: return { ...common, maxlength: one.max_length }
  }
}

function read(one, text) {
  if (text === undefined) return undefined
  if (['boolean', 'bool'].includes(one.data_type)) return text === 'true'
  if (['jsonObject', 'json', 'object', 'string list', 'stringList', 'array'].includes(one.data_type)) return parsed(text, one.para_name)
  return text
}

/** The commands of a model, by service. */
export function commands(model) {
  return model.flatMap((service) => (service.commands ?? []).map((command) => ({ service: service.service_id, ...command })))
}

/** Fields for one command, and what reads them. A command that no model knows is written as JSON. */
export function fields(command) {
  if (!command) {
    return {
      fields: [[{ name: 'service_id', label: 'Service' }, { name: 'command_name', label: 'Command' }], { name: 'paras', label: 'Parameters, as JSON', type: 'area', value: '{}' }],
      read: (given) => ({ service_id: given.service_id, command_name: given.command_name, paras: parsed(given.paras, 'paras', {}) }),
    }
  }
  return {
    fields: (command.paras ?? []).map(parameter),
    read: (given) => ({
      service_id: command.service, command_name: command.command_name,
      paras: Object.fromEntries((command.paras ?? []).map((one) => [one.para_name, read(one, given[`p:${one.para_name}`])]).filter(([, value]) => value !== undefined)),
    }),
  }
}

export function commandForm(id, model) {
  const known = commands(model)
  const place = h('div')
  const answer = h('div', { class: 'stack', 'aria-live': 'polite' })
  const choose = (index) => {
    const made = fields(known[index])
    fill(place, form(made.fields, 'Send the command', async (given) => {
      fill(answer, notice('', 'Waiting for the device…'))
      const began = performance.now()
      try {
        const said = await call('commands.create', { device_id: id, body: made.read(given) })
        const took = `${Math.round(performance.now() - began)} ms`
        fill(answer, h('div', { class: 'row' }, badge(said.error_code ? 'not done' : 'answered', said.error_code ? 'bad' : 'good'), h('span', { class: 'muted small' }, `after ${took}`)),
          said.error_code ? notice('bad', `${said.error_code}: ${said.error_msg}`) : json(said.response))
      } catch (error) {
        fill(answer)
        throw error
      }
    }))
  }
  const picker = h('label', { class: 'field' }, h('span', {}, 'Command'), h('select', { onchange: (event) => choose(Number(event.target.value)) },
    known.map((one, index) => h('option', { value: index }, `${one.service} · ${one.command_name}`)), h('option', { value: known.length }, 'Another, as JSON')))
  choose(0)
  return h('div', { class: 'stack' }, picker, place, answer)
}
