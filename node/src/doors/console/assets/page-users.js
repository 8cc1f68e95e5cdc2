import { call } from './api.js'
import { h } from './dom.js'
import { attempt, badge, button, card, formDialog, head, loaded, mono, secrets, sure, table, time } from './ui.js'

export const title = 'Users and keys'

const ROLES = [['viewer', 'viewer: reads'], ['operator', 'operator: also changes devices, products, rules'], ['admin', 'admin: everything']]
const KINDS = { admin: 'info', operator: '', viewer: '' }
const fixed = (one) => one.source && one.source !== 'registry'

export async function render(root) {
  const users = loaded(() => call('people.list_users'), ({ users: list }) => table('Users', [
    { label: 'Name', cell: (one) => one.name },
    { label: 'Role', cell: (one) => badge(one.role, KINDS[one.role]) },
    { label: 'From', cell: (one) => (fixed(one) ? 'the configuration' : 'the registry') },
    { label: 'Since', cell: (one) => time(one.create_time) },
    { label: 'Tools', tools: true, cell: (one) => (fixed(one) ? null : h('span', { class: 'row' },
      button('Change', () => formDialog(`Change ${one.name}`, [
        { name: 'role', label: 'Role', type: 'select', options: ROLES, value: one.role },
        { name: 'password', label: 'New password', type: 'password', autocomplete: 'new-password', hint: 'Empty: it stays. A new one ends the user’s sessions.' },
      ], 'Change', async (given) => { await call('people.update_user', { user_name: one.name, body: given }); users.reload() }), 'small'),
      button('Delete', () => sure('Delete the user?', `${one.name} and the keys of that name are void at once.`, 'Delete', async () => { await attempt(() => call('people.delete_user', { user_name: one.name })); users.reload(); keys.reload() }), 'small danger'))) },
  ], list, 'No user'))
  const keys = loaded(() => call('people.list_access_keys'), ({ access_keys: list }) => table('Access keys', [
    { label: 'Access key', cell: (one) => mono(one.access_key) },
    { label: 'User', cell: (one) => one.user },
    { label: 'From', cell: (one) => (fixed(one) ? 'the configuration' : 'the registry') },
    { label: 'Since', cell: (one) => time(one.create_time) },
    { label: 'Tools', tools: true, cell: (one) => (fixed(one) ? null : button('Delete', () => sure('Delete the key?', 'Requests that it signs are refused at once.', 'Delete', async () => { await attempt(() => call('people.delete_access_key', { access_key: one.access_key })); keys.reload() }), 'small danger')) },
  ], list, 'No key'))
  const addUser = () => formDialog('Add a user', [
    { name: 'name', label: 'Name', required: true, maxlength: 64 },
    { name: 'password', label: 'Password', type: 'password', required: true, autocomplete: 'new-password' },
    { name: 'role', label: 'Role', type: 'select', options: ROLES },
  ], 'Add', async (given) => { await call('people.create_user', { body: given }); users.reload() })
  const addKey = () => formDialog('Add an access key', [{ name: 'user', label: 'User', required: true }], 'Add', async (given) => {
    const made = await call('people.create_access_key', { body: given })
    keys.reload()
    secrets('The access key', 'The secret key is shown only now.', [['Access key', made.access_key], ['Secret key', made.secret_key]])
  })
  root.append(head('Users and keys', 'Who may sign in here and call the API, and with which keys programs sign.'),
    h('div', { class: 'stack' }, card('Users', button('Add a user', addUser, 'primary small'), users), card('Access keys', button('Add a key', addKey, 'small'), keys)))
  await Promise.all([users.ready, keys.ready])
}
