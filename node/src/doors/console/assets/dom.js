// Elements without markup in strings: what comes from the server is only ever text.

const SVG = 'http://www.w3.org/2000/svg'

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (name === 'value') element.value = value
    else if (name === 'checked' || name === 'disabled' || name === 'required' || name === 'hidden' || name === 'open') element[name] = true
    else element.setAttribute(name, value === true ? '' : value)
  }
  append(element, children)
  return element
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue
    element.append(child instanceof Node ? child : String(child))
  }
  return element
}

/** An element of HTML; attributes that begin with `on` are listeners. */
export function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children)
}

/** An element of SVG. */
export function s(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children)
}

export function fill(element, ...children) {
  element.replaceChildren()
  return append(element, children)
}

const ICONS = {
  overview: 'M3 12h4l3-8 4 16 3-8h4',
  sessions: 'M4 6h16M4 12h16M4 18h10',
  devices: 'M7 3h10a2 2 0 0 1 2 2v14a2 2 0 0 1-2 2H7a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2zM10 18h4',
  products: 'M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9',
  rules: 'M4 5h16l-6 7v6l-4 2v-8z',
  tasks: 'M4 6l2 2 3-3M4 13l2 2 3-3M12 7h8M12 14h8M4 20h16',
  sensoro: 'M12 12m-2 0a2 2 0 1 0 4 0 2 2 0 1 0-4 0M8 8a6 6 0 0 0 0 8M16 8a6 6 0 0 1 0 8M5 5a10 10 0 0 0 0 14M19 5a10 10 0 0 1 0 14',
  retained: 'M6 3h12v18l-6-4-6 4z',
  trace: 'M5 19a2 2 0 1 0 .01 0M19 5a2 2 0 1 0 .01 0M7 19h6a4 4 0 0 0 0-8h-2a4 4 0 0 1 0-6h6',
  why: 'M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 18h.01M12 3a9 9 0 1 0 .01 0',
  client: 'M4 5h16v11H9l-5 4z',
  topics: 'M5 20V10M12 20V4M19 20v-7',
  alarms: 'M6 16V11a6 6 0 0 1 12 0v5l2 2H4zM10 21h4',
  bans: 'M12 3a9 9 0 1 0 .01 0M6 6l12 12',
  settings: 'M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4',
  backups: 'M12 3v11M8 10l4 4 4-4M4 17v3h16v-3',
  audit: 'M6 3h9l4 4v14H6zM9 12h7M9 16h7M9 8h3',
  access: 'M10 14a4 4 0 0 1 0-6l3-3a4 4 0 0 1 6 6l-1 1M14 10a4 4 0 0 1 0 6l-3 3a4 4 0 0 1-6-6l1-1',
  users: 'M9 11a3.5 3.5 0 1 0-.01 0M3 20c0-4 3-6 6-6s6 2 6 6M16 5a3 3 0 0 1 0 6M17 14c3 0 4 3 4 5',
  menu: 'M4 7h16M4 12h16M4 17h16',
  close: 'M6 6l12 12M18 6L6 18',
  copy: 'M9 9h11v11H9zM5 15H4V4h11v1',
  light: 'M12 8a4 4 0 1 0 .01 0M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M5 19l1.4-1.4M17.6 6.4L19 5',
  dark: 'M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.500 10.500z',
  plus: 'M12 5v14M5 12h14',
  out: 'M10 4H5v16h5M14 8l4 4-4 4M18 12H9',
}

export function icon(name) {
  return s('svg', { viewBox: '0 0 24 24', fill: 'none', stroke: 'currentColor', 'stroke-width': 1.8, 'stroke-linecap': 'round', 'stroke-linejoin': 'round', 'aria-hidden': 'true' }, s('path', { d: ICONS[name] ?? ICONS.overview }))
}

export function bird() {
  return s('svg', { viewBox: '0 0 32 32', 'aria-hidden': 'true' },
    s('rect', { width: 32, height: 32, rx: 8, fill: '#1d5f88' }),
    s('path', { d: 'M3 12c5-2 9-1 12 4 3-6 7-8 14-7-5 1-8 4-10 8 2 1 3 2 4 4-3-2-6-2-8-1-2-4-6-7-12-8z', fill: '#fff' }))
}
