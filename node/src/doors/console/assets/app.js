// The frame around the pages: who is signed in, where one is, and how it looks.

import { fill, h, icon, bird } from './dom.js'
import { onSignedOut, session } from './api.js'
import { attempt, form, notice, told } from './ui.js'

/** Groups of the menu: name, title, icon, and the least role. Pages are loaded when they are first shown. */
const MENU = [
  ['Watch', [['overview', 'Overview'], ['sessions', 'Sessions'], ['topics', 'Topics'], ['alarms', 'Alarms']]],
  ['Platform', [['devices', 'Devices'], ['products', 'Products'], ['rules', 'Rules'], ['tasks', 'Batch tasks'], ['sensoro', 'Sensoro app']]],
  ['Messages', [['retained', 'Retained'], ['trace', 'Trace'], ['why', 'Why?'], ['client', 'Test client']]],
  ['Operate', [['access', 'Access details'], ['bans', 'Bans'], ['settings', 'Settings'], ['backups', 'Backups'], ['audit', 'Audit'], ['users', 'Users and keys', 'admin']]],
]
/** Pages without a place in the menu, and the entry under which they are. */
const UNDER = { device: 'devices', session: 'sessions', rule: 'rules', product: 'products', task: 'tasks' }
const RANK = { viewer: 0, operator: 1, admin: 2 }

const app = document.getElementById('app')
let person = null
let leave = []

function setTheme(theme) {
  document.documentElement.dataset.theme = theme
}

function systemTheme() {
  return matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'
}

function chosenTheme() {
  try { return localStorage.getItem('fulmar-theme') } catch { return null }
}

setTheme(chosenTheme() ?? systemTheme())
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { if (!chosenTheme()) setTheme(systemTheme()) })

function themeButton() {
  const made = h('button', { type: 'button', class: 'button icon quiet' })
  const show = () => {
    const dark = document.documentElement.dataset.theme === 'dark'
    made.setAttribute('aria-label', dark ? 'Light colours' : 'Dark colours')
    made.title = made.getAttribute('aria-label')
    fill(made, icon(dark ? 'light' : 'dark'))
  }
  made.addEventListener('click', () => {
    const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'
    setTheme(next)
    try { localStorage.setItem('fulmar-theme', next) } catch { /* It holds until the page is left. */ }
    show()
  })
  show()
  return made
}

function leaveAll() {
  leave.forEach((end) => end())
  leave = []
}

/** What a page may ask of the frame. */
function context() {
  const mine = []
  leave = mine
  return {
    person,
    may: (role) => RANK[person.role] >= RANK[role],
    /** Runs when the page is left. */
    onLeave: (end) => { if (leave === mine) mine.push(end); else end() },
    here: () => leave === mine,
    /** Again and again while the page is shown, and the window is. */
    every(milliseconds, task) {
      let timer
      const run = async () => {
        if (!document.hidden) await task()
        if (leave === mine) timer = setTimeout(run, milliseconds)
      }
      run()
      this.onLeave(() => clearTimeout(timer))
    },
  }
}

function parts() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?')
  const [page, ...rest] = path.split('/').map(decodeURIComponent)
  return { page: page || 'overview', rest, query: new URLSearchParams(query ?? '') }
}

async function show() {
  const { page, rest, query } = parts()
  const known = Object.hasOwn(UNDER, page) || MENU.some(([, entries]) => entries.some(([name]) => name === page))
  leaveAll()
  const main = document.getElementById('main')
  if (!main) return
  const entry = UNDER[page] ?? page
  for (const link of document.querySelectorAll('.side a[data-page]')) {
    if (link.dataset.page === entry) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  closeMenu()
  const mine = context()
  if (!known) {
    fill(main, h('h1', {}, 'Not found'), notice('warn', 'There is no such page. ', h('a', { href: '#/overview' }, 'To the overview')))
    return
  }
  try {
    const module = await import(`./page-${page}.js`)
    if (!mine.here()) return
    fill(main)
    document.title = `${module.title} · Fulmar`
    await module.render(main, mine, rest, query)
    document.getElementById('crumb').textContent = module.title
    main.dataset.page = page
  } catch (error) {
    if (mine.here()) fill(main, h('h1', {}, 'This page cannot be shown'), notice('bad', told(error)))
  }
  if (mine.here() && !document.querySelector('dialog[open]')) main.focus({ preventScroll: true })
  scrollTo(0, 0)
}

function closeMenu() {
  document.querySelector('.side')?.classList.remove('open')
  document.querySelector('.veil')?.remove()
  document.querySelector('.menu-button')?.setAttribute('aria-expanded', 'false')
}

function openMenu() {
  document.querySelector('.side').classList.add('open')
  document.querySelector('.menu-button').setAttribute('aria-expanded', 'true')
  document.querySelector('.shell').append(h('div', { class: 'veil', onclick: closeMenu }))
  document.querySelector('.side a[data-page]').focus()
}

function frame() {
  const side = h('nav', { class: 'side', id: 'side', 'aria-label': 'Pages' },
    h('a', { class: 'brand', href: '#/overview' }, bird(), 'Fulmar'),
    MENU.map(([group, entries]) => [h('h2', {}, group), h('ul', {}, entries
      .filter(([, , role]) => !role || RANK[person.role] >= RANK[role])
      .map(([name, title]) => h('li', {}, h('a', { href: `#/${name}`, 'data-page': name }, icon(name), title))))]))
  const signOut = async () => { await attempt(() => session.signOut()); person = null; leaveAll(); signIn() }
  fill(app, h('div', { class: 'shell' }, side, h('div', {},
    h('header', { class: 'top' },
      h('button', { type: 'button', class: 'button icon menu-button', 'aria-label': 'Menu', 'aria-controls': 'side', 'aria-expanded': 'false', onclick: openMenu }, icon('menu')),
      h('div', { class: 'crumbs' }, h('span', { id: 'crumb' })),
      h('span', { class: 'who' }, h('strong', {}, person.user), h('span', { class: 'role' }, ` · ${person.role}`)),
      themeButton(),
      h('button', { type: 'button', class: 'button icon quiet', 'aria-label': 'Sign out', title: 'Sign out', onclick: signOut }, icon('out'))),
    h('main', { id: 'main', tabindex: '-1' }))))
  show()
}

function signIn(message) {
  document.title = 'Sign in · Fulmar'
  const enter = async ({ user, password }) => {
    person = await session.signIn(user ?? '', password ?? '')
    frame()
  }
  fill(app, h('main', { class: 'sign-in', id: 'main', tabindex: '-1' }, h('div', { class: 'card' },
    h('div', { class: 'heading' }, h('span', { class: 'brand' }, bird(), 'Fulmar'), themeButton()),
    h('h1', {}, 'Sign in'),
    h('p', { class: 'muted' }, 'As a user of this cluster.'),
    message ? notice('warn', message) : null,
    form([
      { name: 'user', label: 'User', required: true, autocomplete: 'username' },
      { name: 'password', label: 'Password', type: 'password', required: true, autocomplete: 'current-password' },
    ], 'Sign in', enter))))
  document.querySelector('input[name=user]').focus()
}

onSignedOut(() => {
  if (!person) return
  person = null
  leaveAll()
  document.querySelector('dialog')?.close()
  signIn('The session is over. Sign in again.')
})

addEventListener('hashchange', () => { if (person) show() })
addEventListener('keydown', (event) => {
  if (event.key === 'Escape') closeMenu()
  const typing = event.target instanceof Element && event.target.closest('input, textarea, select, dialog')
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey) {
    const found = document.querySelector('main [data-search]')
    if (found) { event.preventDefault(); found.focus() }
  }
})
document.querySelector('.skip').addEventListener('click', (event) => { event.preventDefault(); document.getElementById('main')?.focus() })

try {
  person = await session.show()
  if (person) frame()
  else signIn()
} catch (error) {
  signIn(told(error))
}
