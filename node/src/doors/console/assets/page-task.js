import { call } from './api.js'
import { h } from './dom.js'
import { attempt, badge, button, card, facts, head, json, paged, sure, table, time } from './ui.js'
import { STATES } from './page-tasks.js'

export const title = 'Batch task'

const TARGETS = { Success: 'good', Fail: 'bad', FailWaitRetry: 'warn', Processing: 'info', Waitting: 'warn' }

export async function render(root, ctx, [id]) {
  const about = h('div')
  const list = paged(async (offset, limit) => {
    const { batchtask, task_details: details, page } = await call('batch_tasks.show', { task_id: id, offset, limit })
    const progress = batchtask.task_progress ?? {}
    about.replaceChildren(h('div', { class: 'stack' }, h('div', { class: 'tiles' }, [['Targets', progress.total], ['Done', progress.success], ['Failed', progress.fail], ['Under way', progress.processing], ['Waiting', progress.waitting]].map(([label, value]) =>
      h('div', { class: 'tile' }, h('div', { class: 'label' }, label), h('div', { class: 'value' }, value ?? '–')))),
    card('About', null, facts([['State', badge(batchtask.status.replace('Waitting', 'Waiting'), STATES[batchtask.status])], ['Kind', batchtask.task_type], ['Begun', time(batchtask.create_time)], ['What for each', batchtask.document ? json(batchtask.document) : null]]))))
    heading.textContent = batchtask.task_name
    return { rows: details, count: page?.count }
  }, (rows) => table('Targets', [
    { label: 'Device', cell: (one) => h('a', { href: `#/device/${encodeURIComponent(one.target)}` }, one.target) },
    { label: 'State', cell: (one) => badge(one.status.replace('Waitting', 'Waiting'), TARGETS[one.status]) },
    { label: 'Answer', cell: (one) => h('span', { class: 'mono wrap' }, one.error?.error_msg ?? one.output ?? '') },
  ], rows, 'No target yet'))
  const heading = h('h1', {}, 'Batch task')
  const act = (name, text) => button(text, async () => { await attempt(() => call(`batch_tasks.${name}`, { task_id: id, body: {} }), 'Asked'); list.reload() })
  const remove = () => sure('Delete the task?', 'What came of it goes with it.', 'Delete', async () => {
    if (await attempt(() => call('batch_tasks.delete', { task_id: id }), 'Deleted') !== undefined) location.hash = '#/tasks'
  })
  root.append(h('div', { class: 'page-head' }, heading, ctx.may('operator') ? h('div', { class: 'actions' }, act('retry', 'Retry'), act('stop', 'Stop'), button('Delete', remove, 'danger')) : null),
    h('div', { class: 'stack' }, about, card('Targets', null, list)))
  await list.ready
  ctx.every(2000, () => list.reload())
}
