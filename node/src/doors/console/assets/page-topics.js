import { call } from './api.js'
import { h } from './dom.js'
import { bytes, card, head, loaded, mono, notice, number, table } from './ui.js'

export const title = 'Topics'

export const silent = (said) => (said.silent?.length ? notice('warn', `Not told by: ${said.silent.join(', ')}`) : null)

export async function render(root, ctx) {
  const top = loaded(() => call('topics.top', { limit: 30 }), (said) => [silent(said), table('Top topics', [
    { label: 'Topic', cell: (one) => mono(one.topic) },
    { label: 'Messages', number: true, cell: (one) => (one.over ? `≤ ${number(one.messages)}` : number(one.messages)) },
    { label: 'Bytes', number: true, cell: (one) => bytes(one.bytes) },
  ], said.topics ?? [], 'Nothing was published in the last minute')])
  const slow = loaded(() => call('diagnosis.slow', { limit: 50 }), (said) => [silent(said), table('Slow receivers', [
    { label: 'Client', cell: (one) => h('a', { href: `#/why?client=${encodeURIComponent(one.client)}` }, one.client) },
    { label: 'Node', cell: (one) => mono(one.node.slice(-6)) },
    { label: 'Slow deliveries', number: true, cell: (one) => number(one.count) },
    { label: 'Longest', number: true, cell: (one) => `${number(one.longest_ms)} ms` },
    { label: 'Last', number: true, cell: (one) => `${Math.round(Number(one.ago_ms ?? 0) / 1000)} s ago` },
  ], said.receivers ?? [], 'Nobody was slow in the last five minutes')])
  root.append(head('Topics', 'What is published most, and who takes long over it.'), h('div', { class: 'grid wide' }, card('Top topics of the last minute', null, top), card('Slow receivers', null, slow)))
  await Promise.all([top.ready, slow.ready])
  ctx.every(5000, () => Promise.all([top.reload(), slow.reload()]))
}
