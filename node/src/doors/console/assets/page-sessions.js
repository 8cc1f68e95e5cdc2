import { call, watch } from './api.js'
import { h } from './dom.js'
import { badge, head, loaded, button, mono, number, search, table, time } from './ui.js'

export const title = 'Sessions'

const LIMIT = 50

/** A list that goes on behind a marker; the markers of the pages before are kept to go back. */
export function marked(load, show) {
  let markers = [undefined]
  const place = loaded(() => load(markers.at(-1)), (said) => {
    const back = () => { markers.pop(); place.reload() }
    const on = () => { markers.push(said.marker); place.reload() }
    return [h('div', {}, show(said)), markers.length > 1 || said.marker ? h('nav', { class: 'pager', 'aria-label': 'Pages' }, h('span', {}, `Page ${markers.length}`),
      Object.assign(button('Previous', back, 'small'), { disabled: markers.length === 1 }),
      Object.assign(button('Next', on, 'small'), { disabled: !said.marker })) : null]
  })
  place.restart = () => { markers = [undefined]; return place.reload() }
  return place
}

export const sessionLink = (name) => h('a', { href: `#/session/${encodeURIComponent(name)}` }, name)

export async function render(root, ctx) {
  const filter = {}
  const list = marked((marker) => call('sessions.list', { ...filter, limit: LIMIT, marker }), (said) => [
    table('Sessions', [
      { label: 'Session', cell: (one) => h('a', { href: `#/session/${encodeURIComponent(one.session)}` }, one.identity) },
      { label: 'Dialect', cell: (one) => one.dialect },
      { label: 'State', cell: (one) => badge(one.connected ? 'connected' : 'away', one.connected ? 'good' : 'warn') },
      { label: 'Node', cell: (one) => (one.node ? mono(one.node.slice(-6)) : '–') },
      { label: 'Subscriptions', number: true, cell: (one) => number(one.subscriptions) },
      { label: 'Queued', number: true, cell: (one) => number(one.queued) },
      { label: 'Stays', cell: (one) => (one.persistent ? (one.ends_at ? h('span', {}, 'until ', time(one.ends_at)) : `${number(one.expiry_s)} s`) : 'no') },
    ], said.sessions, 'No session is like that'),
    h('p', { class: 'muted small' }, `In the cluster: ${number(said.count)}`),
  ])
  const set = (name) => (value) => { if (value === '') delete filter[name]; else filter[name] = value; list.restart() }
  const choice = (label, name, options) => h('label', { class: 'field' }, h('span', {}, label), h('select', {
    onchange: (event) => set(name)(event.target.value === 'true' ? true : event.target.value === 'false' ? false : event.target.value),
  }, options.map(([value, text]) => h('option', { value }, text))))
  root.append(head('Sessions', 'Clients that are connected, and those whose session outlives their connection.'), h('section', { class: 'card' },
    h('div', { class: 'bar' }, search('Client id or device id contains', set('contains')),
      choice('State', 'connected', [['', 'All'], ['true', 'Connected'], ['false', 'Away']]),
      choice('Dialect', 'dialect', [['', 'All'], ...['generic', 'huawei', 'aliyun', 'tencent', 'sensoro', 'application'].map((one) => [one, one])])),
    list))
  await list.ready
  let timer
  const soon = () => { clearTimeout(timer); timer = setTimeout(() => list.reload(), 400) }
  ctx.onLeave(() => clearTimeout(timer))
  ctx.onLeave(watch('sessions.watch', {}, (said) => { if (said.kind === 'changed') soon() }))
}
