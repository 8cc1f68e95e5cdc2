import { h } from './dom.js'
import { card, head, notice } from './ui.js'

export const title = 'Backups'

export async function render(root, ctx) {
  root.append(head('Backups', 'Everything that is replicated, as one file, while the cluster goes on.'),
    h('div', { class: 'grid' },
      card('Make a backup', null, h('div', { class: 'stack' },
        h('p', {}, 'Sessions, queues, retained messages, devices, rules, messages, users: as they are at one entry of the log. The file ends with a checksum.'),
        notice('warn', 'A backup holds secrets: whoever has the file can be every device and user.'),
        ctx.may('admin') ? h('div', {}, h('a', { class: 'button primary', href: 'download/backups.create?name=fulmar.backup', download: 'fulmar.backup' }, 'Download a backup')) : notice('', 'Only admins make backups.'))),
      card('Restore', null, h('div', { class: 'stack' }, h('p', {}, 'A backup is restored into a cluster without data, with the command line:'),
        h('pre', { class: 'block', tabindex: '0' }, 'fulmar ctl restore FILE')))))
}
