// Small charts of what was measured while the page is open, and the map of a cluster.

import { h, s } from './dom.js'
import { number } from './ui.js'

const KEPT = 90
const [HEIGHT, LEFT, BOTTOM] = [150, 40, 12]

function nice(max) {
  if (max <= 0) return 1
  const power = 10 ** Math.floor(Math.log10(max))
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= max)
}

/** Lines over time. `add` takes one value for each name; the figures beside the names are the newest. */
export function chart(title, names, unit = '') {
  const series = names.map(() => [])
  const place = h('figure', { class: 'chart', 'aria-label': title })
  let drawn = 0
  const draw = () => {
    drawn = place.clientWidth
    const width = Math.max(240, drawn || 480)
    const max = nice(Math.max(0, ...series.flat().filter((value) => value !== null)))
    const x = (at, length) => LEFT + ((width - LEFT - 4) * (KEPT - length + at)) / (KEPT - 1)
    const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - 10) * value) / max
    const label = (value) => (value >= 1e6 ? `${value / 1e6}M` : value >= 1e3 ? `${value / 1e3}k` : Number(value.toPrecision(3)))
    const svg = s('svg', { viewBox: `0 0 ${width} ${HEIGHT}`, 'aria-hidden': 'true' },
      [0, 0.5, 1].map((part) => [
        s('line', { class: 'axis', x1: LEFT, x2: width, y1: y(max * part), y2: y(max * part) }),
        s('text', { x: LEFT - 6, y: y(max * part) + 4, 'text-anchor': 'end' }, label(max * part)),
      ]),
      series.map((values, index) => {
        const points = values.map((value, at) => (value === null ? null : `${x(at, values.length).toFixed(1)},${y(value).toFixed(1)}`)).filter(Boolean)
        if (points.length < 2) return null
        const [first, last] = [points[0].split(',')[0], points.at(-1).split(',')[0]]
        return [
          s('polygon', { class: `area s${index + 1}`, points: `${first},${y(0)} ${points.join(' ')} ${last},${y(0)}` }),
          s('polyline', { class: `line s${index + 1}`, points: points.join(' ') }),
        ]
      }))
    const latest = (values) => (values.length && values.at(-1) !== null ? `${number(Number(values.at(-1).toPrecision(4)))}${unit}` : '–')
    place.replaceChildren(svg, h('figcaption', { class: 'legend' }, names.map((name, index) => h('span', {},
      s('svg', { viewBox: '0 0 10 10', 'aria-hidden': 'true' }, s('rect', { class: `key s${index + 1}`, width: 10, height: 10, rx: 3 })),
      `${name} `, h('b', {}, latest(series[index]))))))
  }
  draw()
  new ResizeObserver(() => { if (place.clientWidth !== drawn) draw() }).observe(place)
  return {
    place,
    add: (values) => {
      values.forEach((value, index) => {
        series[index].push(value ?? null)
        if (series[index].length > KEPT) series[index].shift()
      })
      draw()
    },
  }
}

/** Members in a ring, the leader on top; a line between each two that reach each other. */
export function clusterMap(members, reaches) {
  const leading = members.findIndex((member) => member.role === 'leader')
  const ring = leading > 0 ? [...members.slice(leading), ...members.slice(0, leading)] : members
  const [width, height] = [460, ring.length > 1 ? 320 : 160]
  const at = ring.map((_, index) => {
    if (ring.length === 1) return [width / 2, height / 2]
    const angle = -Math.PI / 2 + (2 * Math.PI * index) / ring.length
    return [width / 2 + 150 * Math.cos(angle), height / 2 - 4 + 98 * Math.sin(angle)]
  })
  const edges = []
  ring.forEach((a, i) => ring.forEach((b, j) => {
    if (j <= i) return
    const both = a.alive && b.alive && reaches(a.node, b.node) && reaches(b.node, a.node)
    edges.push(s('line', { class: both ? 'edge' : 'edge lost', x1: at[i][0], y1: at[i][1], x2: at[j][0], y2: at[j][1] }))
  }))
  const said = ring.map((member) => `${member.node} ${member.role}${member.alive ? '' : ', down'}`).join('; ')
  return h('div', { class: 'map' }, s('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `Cluster map: ${said}` },
    edges,
    ring.map((member, index) => {
      const [x, y] = at[index]
      const kind = member.alive ? (member.role === 'leader' ? 'leader' : '') : 'gone'
      const lag = member.lag === undefined || member.lag === null ? '' : ` · lag ${member.lag}`
      return s('g', { class: `node ${kind}`, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` },
        s('circle', { r: 31 }),
        s('text', { y: -1 }, member.node.slice(-4)),
        s('text', { class: 'sub', y: 14 }, member.alive ? member.role : 'down'),
        s('text', { class: 'sub below', y: index === 0 && ring.length > 1 ? -42 : 48 }, `${number(member.sessions)} ${Number(member.sessions) === 1 ? 'session' : 'sessions'}${lag}`))
    })))
}
