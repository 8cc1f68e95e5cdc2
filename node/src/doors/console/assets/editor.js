// A text field that grows with its text, and underlines where the server found a mistake.

import { fill, h } from './dom.js'

/** The member, the column from 1 (in bytes of ASCII) and the problem that a fault names; `null` if it names none. */
export function mistake(message) {
  const found = /\b(where|select)\b.*?\bat column (\d+): (.*?)\.?$/s.exec(message)
  return found && { member: found[1], column: Number(found[2]), problem: found[3] }
}

export function editor({ name, label, value = '', hint, changed = () => {} }) {
  const mirror = h('div', { class: 'mirror', 'aria-hidden': 'true' })
  const problem = h('span', { class: 'problem', id: `problem-${name}`, role: 'alert' })
  const input = h('textarea', {
    name, rows: 1, spellcheck: 'false', autocapitalize: 'off', 'aria-describedby': `problem-${name}`,
    oninput: () => { clear(); grow(); changed() },
  })
  input.value = value
  const grow = () => { input.style.height = '0'; input.style.height = `${Math.max(62, input.scrollHeight + 2)}px` }
  const clear = () => { fill(mirror, input.value); fill(problem); input.removeAttribute('aria-invalid') }
  /** Marks the word at a column; one past the end marks the end. */
  const mark = (column, why) => {
    const text = input.value
    const at = Math.min(column - 1, text.length)
    const word = /^[\w.$"]+|^'[^']*'?|^\S/.exec(text.slice(at))?.[0] ?? ''
    fill(mirror, text.slice(0, at), h('mark', {}, word || '\u00a0\u00a0'), text.slice(at + word.length))
    fill(problem, `Column ${column}: ${why}`)
    input.setAttribute('aria-invalid', 'true')
    input.focus()
    input.setSelectionRange(at, at + word.length)
  }
  clear()
  requestAnimationFrame(grow)
  const place = h('label', { class: 'field' }, h('span', {}, label), h('span', { class: 'editor' }, mirror, input), problem, hint ? h('span', { class: 'hint' }, hint) : null)
  return { place, mark, clear, get value() { return input.value }, set value(text) { input.value = text; clear(); grow() } }
}
