import { call } from './api.js'
import { fill, h } from './dom.js'
import { badge, card, form, head, mono, notice, number, time } from './ui.js'
import { silent } from './page-topics.js'

export const title = 'Why?'

function evidence(one) {
  return h('li', {}, h('div', { class: 'meta' }, one.at ? time(one.at) : 'now', one.node ? mono(`node ${one.node.slice(-6)}`) : 'replicated state', Number(one.epoch) ? `epoch ${one.epoch}` : null),
    h('span', {}, one.text, Number(one.bound) ? h('span', { class: 'muted' }, ` (${number(one.count)} of ${number(one.bound)})`) : null))
}

export async function render(root, ctx, _, query) {
  const answer = h('div', { class: 'stack', 'aria-live': 'polite' })
  const ask = async (given) => {
    const said = await call('diagnosis.why', { client: given.client ?? '', topic: given.topic ?? '', rule: given.rule ?? '' })
    fill(answer, silent(said), (said.findings ?? []).map((one, index) => h('section', { class: 'card' },
      h('header', {}, h('h2', {}, one.sentence), badge(one.cause.replaceAll('_', ' '), index ? '' : 'info')),
      one.advice ? notice('', one.advice) : null,
      one.evidence?.length ? h('ul', { class: 'feed' }, one.evidence.map(evidence)) : null)))
  }
  const asked = { client: query.get('client') ?? undefined, topic: query.get('topic') ?? undefined, rule: query.get('rule') ?? undefined }
  root.append(head('Why?', 'Why somebody does not get a message: by the replicated state, and what every node remembers.'), h('div', { class: 'stack' },
    card('Who is asked about', null, form([
      { name: 'client', label: 'Client id, or device id', value: asked.client },
      [{ name: 'topic', label: 'Topic', value: asked.topic, hint: 'Empty: whatever there was' }, { name: 'rule', label: 'Rule id', value: asked.rule, hint: 'In place of a client' }],
    ], 'Why?', ask)), answer))
  if (asked.client || asked.rule) await ask(asked).catch((error) => fill(answer, notice('bad', error.message)))
}
