// Parts that pages are made of.

import { append, fill, h, icon } from './dom.js'
import { Fault } from './api.js'

export function toast(text, kind = '') {
  const shown = h('div', { class: `toast ${kind}` }, text)
  document.getElementById('toasts').append(shown)
  setTimeout(() => shown.remove(), kind === 'bad' ? 8000 : 4000)
}

export function told(error) {
  if (!(error instanceof Fault)) console.error(error)
  return error.message
}

/** Runs what a person asked for, and says what went wrong. */
export async function attempt(task, done) {
  try {
    const result = await task()
    if (done) toast(done)
    return result
  } catch (error) {
    toast(told(error), 'bad')
    return undefined
  }
}

export const button = (text, onclick, kind = '') => h('button', { type: 'button', class: `button ${kind}`, onclick }, text)
export const badge = (text, kind = '') => h('span', { class: `badge ${kind}` }, text)
export const notice = (kind, ...content) => h('div', { class: `notice ${kind}`, role: kind === 'bad' ? 'alert' : undefined }, content)
export const empty = (title, ...more) => h('div', { class: 'empty' }, h('strong', {}, title), more)
export const mono = (text) => h('code', { class: 'mono' }, text ?? '')

export function head(title, lead, ...actions) {
  return h('div', { class: 'page-head' }, h('h1', {}, title),
    actions.flat().length ? h('div', { class: 'actions' }, actions) : null,
    lead ? h('p', { class: 'lead' }, lead) : null)
}

export function card(title, actions, ...content) {
  return h('section', { class: 'card' },
    title ? h('header', {}, h('h2', {}, title), actions ? h('div', { class: 'actions' }, actions) : null) : null, content)
}

export const facts = (pairs) => h('dl', { class: 'facts' },
  pairs.filter(([, value]) => value !== undefined && value !== null && value !== '')
    .map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]))

/** Columns have `label` and `cell`, may be `number` or `tools`. On a narrow screen each row becomes a card. */
export function table(caption, columns, rows, nothing = 'Nothing here') {
  if (!rows.length) return typeof nothing === 'string' ? empty(nothing) : nothing
  const kind = (column) => (column.number ? 'number' : column.tools ? 'tools' : undefined)
  return h('div', { class: 'table-wrap' }, h('table', { class: 'cards' },
    h('caption', { class: 'visually-hidden' }, caption),
    h('thead', {}, h('tr', {}, columns.map((column) => h('th', { scope: 'col', class: kind(column) },
      column.tools ? h('span', { class: 'visually-hidden' }, column.label) : column.label)))),
    h('tbody', {}, rows.map((row) => h('tr', {}, columns.map((column) =>
      h('td', { class: kind(column), 'data-label': column.label }, column.cell(row))))))))
}

const DEVICE = { ONLINE: 'good', OFFLINE: 'warn', FROZEN: 'bad', INACTIVE: '' }
export const deviceBadge = (status) => badge(status.toLowerCase(), DEVICE[status] ?? '')

/** A time as the server writes it: ISO 8601, or `20151212T121212Z`. */
export function time(text) {
  if (!text) return '–'
  const iso = String(text).replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z')
  const date = typeof text === 'number' ? new Date(text) : new Date(iso)
  if (Number.isNaN(date.getTime())) return String(text)
  const shown = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' }).format(date)
  return h('time', { datetime: date.toISOString(), title: String(text) }, shown)
}

export const clock = (date = new Date()) => date.toLocaleTimeString(undefined, { hour12: false })

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
export function bytes(count) {
  let value = Number(count ?? 0), unit = 0
  while (value >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1 }
  return `${unit ? value.toFixed(1) : value} ${UNITS[unit]}`
}
export const number = (value) => (value === undefined || value === null ? '–' : Number(value).toLocaleString())
export const json = (value) => h('pre', { class: 'block', tabindex: '0' }, JSON.stringify(value, null, 2))

export function copyButton(text) {
  return h('button', {
    type: 'button', class: 'button small icon', 'aria-label': 'Copy', title: 'Copy',
    onclick: () => attempt(() => navigator.clipboard?.writeText(text) ?? Promise.reject(new Fault(0, '', 'Copying needs HTTPS or localhost; mark the text and copy it.')), 'Copied'),
  }, icon('copy'))
}

/** A dialog that Esc closes; `content` is given what closes it. */
export function dialog(title, content) {
  const id = `dialog-${Date.now()}`
  const shown = h('dialog', { 'aria-labelledby': id, onclose: () => shown.remove() })
  const close = () => shown.close()
  append(shown, [
    h('header', {}, h('h2', { id }, title), h('button', { type: 'button', class: 'button small icon quiet', 'aria-label': 'Close', onclick: close }, icon('close'))),
    content(close),
  ])
  document.body.append(shown)
  shown.showModal()
  return shown
}

/** Asks before something that cannot be undone. */
export function sure(title, text, verb, task) {
  dialog(title, (close) => h('div', { class: 'stack' }, h('p', {}, text), h('div', { class: 'row' },
    button(verb, async () => { close(); await task() }, 'danger'), button('Cancel', close))))
}

/** Shows what is never shown again. */
export function secrets(title, warning, pairs) {
  dialog(title, (close) => h('div', { class: 'stack' },
    notice('warn', warning),
    pairs.map(([name, value]) => h('div', {}, h('h3', {}, name), h('div', { class: 'secret' }, h('code', {}, value), copyButton(value)))),
    h('div', { class: 'row' }, button('I have kept it', close, 'primary'))))
}

function control(field) {
  const common = { name: field.name, required: field.required, 'aria-describedby': field.hint ? `hint-${field.name}` : undefined }
  switch (field.type) {
    case 'select':
      return h('select', common, field.options.map((option) => {
        const [value, label] = Array.isArray(option) ? option : [option, option]
        return h('option', { value, selected: String(value) === String(field.value ?? '') }, label)
      }))
    case 'area':
      return h('textarea', { ...common, rows: field.rows ?? 4, placeholder: field.placeholder, spellcheck: 'false' }, field.value ?? '')
    case 'check':
      return h('input', { ...common, type: 'checkbox', checked: field.value })
    default:
      return h('input', { ...common, type: field.type ?? 'text', value: field.value ?? '', placeholder: field.placeholder, min: field.min, max: field.max, step: field.step, autocomplete: field.autocomplete ?? 'off', maxlength: field.maxlength, pattern: field.pattern })
  }
}

export function field(one) {
  const input = control(one)
  if (one.type === 'check') return h('label', { class: 'check' }, input, one.label)
  return h('label', { class: 'field' }, h('span', {}, one.label), input, one.hint ? h('span', { class: 'hint', id: `hint-${one.name}` }, one.hint) : null)
}

/** The values of a form's controls, by name; empty ones are left out, numbers are numbers. */
export function values(form) {
  const out = {}
  for (const input of form.elements) {
    if (!input.name) continue
    if (input.type === 'checkbox') out[input.name] = input.checked
    else if (input.value !== '') out[input.name] = input.type === 'number' ? Number(input.value) : input.value
  }
  return out
}

/** A form that Enter sends; what is wrong is said below its fields. */
export function form(fields, verb, submit, cancel) {
  const problem = h('div', { 'aria-live': 'polite' })
  const send = h('button', { class: 'button primary' }, verb)
  const made = h('form', {
    class: 'fields',
    onsubmit: async (event) => {
      event.preventDefault()
      fill(problem)
      send.disabled = true
      try {
        await submit(values(made), made)
      } catch (error) {
        fill(problem, notice('bad', told(error)))
      }
      send.disabled = false
    },
  }, fields.map((one) => (Array.isArray(one) ? h('div', { class: 'pair' }, one.map(field)) : one instanceof Node ? one : field(one))),
  problem, h('div', { class: 'buttons' }, send, cancel ? button('Cancel', cancel) : null))
  return made
}

export function formDialog(title, fields, verb, submit, before) {
  return dialog(title, (close) => [before ?? null, form(fields, verb, async (given, made) => { await submit(given, made); close() }, close)])
}

/** Text that must be JSON. */
export function parsed(text, name, otherwise) {
  if (text === undefined || text.trim() === '') return otherwise
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Fault(400, '', `${name} is not JSON: ${error.message}`)
  }
}

/** Tabs by arrow keys; each shows what its function makes. */
export function tabs(list) {
  const panel = h('div', { role: 'tabpanel', tabindex: '-1' })
  const choose = (index, focus) => {
    buttons.forEach((one, at) => {
      one.setAttribute('aria-selected', String(at === index))
      one.tabIndex = at === index ? 0 : -1
    })
    if (focus) buttons[index].focus()
    panel.setAttribute('aria-label', list[index][0])
    fill(panel, list[index][1]())
  }
  const buttons = list.map(([title], index) => h('button', {
    type: 'button', role: 'tab', onclick: () => choose(index),
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
      if (step) choose((index + step + list.length) % list.length, true)
    },
  }, title))
  choose(0)
  return [h('div', { class: 'tabs', role: 'tablist' }, buttons), panel]
}

/** A part that is loaded, and can be loaded again. */
export function loaded(load, show) {
  const place = h('div', { class: 'stack', 'aria-busy': 'true' }, h('p', { class: 'muted' }, 'Loading…'))
  place.reload = async () => {
    try {
      fill(place, show(await load()))
    } catch (error) {
      fill(place, notice(error.status === 403 ? 'warn' : 'bad', told(error)))
    }
    place.setAttribute('aria-busy', 'false')
    return place
  }
  place.ready = place.reload()
  return place
}

/** A list by pages: `load(offset, limit)` gives `{rows, count}`; a count that nobody knows is left out. */
export function paged(load, show, limit = 20) {
  let offset = 0
  const place = loaded(() => load(offset, limit), ({ rows, count }) => {
    const last = count === undefined ? rows.length < limit : offset + rows.length >= count
    const go = (to) => { offset = to; place.reload() }
    return [h('div', {}, show(rows)), offset || !last ? h('nav', { class: 'pager', 'aria-label': 'Pages' },
      h('span', {}, `${offset + 1}–${offset + rows.length}${count === undefined ? '' : ` of ${number(count)}`}`),
      Object.assign(button('Previous', () => go(Math.max(0, offset - limit)), 'small'), { disabled: !offset }),
      Object.assign(button('Next', () => go(offset + limit), 'small'), { disabled: last })) : null]
  })
  place.restart = () => { offset = 0; return place.reload() }
  return place
}

/** A field to search with: `/` focuses it; what was typed is told a moment later. */
export function search(label, changed) {
  let timer
  return h('label', { class: 'field search' }, h('span', {}, label), h('input', {
    type: 'search', 'data-search': true, placeholder: 'Press / to search', autocomplete: 'off',
    oninput: (event) => { clearTimeout(timer); timer = setTimeout(() => changed(event.target.value.trim()), 250) },
  }))
}
