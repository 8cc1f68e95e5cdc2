// The web console in a headless Chromium, as a person uses it. Arguments, as one object of JSON: `nodes` (rest and mqtt
// addresses), `user`, `password`, `chromium`, `device` (id, client_id, username, password), `other` and `suffix`.
// What is done is told as `@@{"event": "step", "name": ...}`, what is wrong as `@@{"event": "error", "what": ...}`.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const require = createRequire(join(process.env.INTEROP_VENDORS_NODE_DIR, 'package.json'))
const puppeteer = require('puppeteer-core')
const mqtt = require('mqtt-5')
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')

const given = JSON.parse(process.argv[2])
const base = `http://${given.nodes[0].rest}`
const WAIT = { timeout: 20_000 }
const PAGES = ['overview', 'sessions', 'topics', 'alarms', 'devices', `device/${given.device.id}`, 'products', 'rules', 'rule/new', 'tasks', 'sensoro', 'retained', 'trace', 'why', 'client', 'access', 'bans', 'settings', 'backups', 'audit', 'users']

const tell = (event, more) => console.log(`@@${JSON.stringify({ event, ...more })}`)
const step = (name) => tell('step', { name })

class Wrong extends Error {}
const check = (fact, what) => { if (!fact) throw new Wrong(what) }

const browser = await puppeteer.launch({
  executablePath: given.chromium,
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking'],
})
const clients = []
const wrong = []

/** A client of MQTT.js, connected. */
async function connect(node, fields) {
  const client = await mqtt.connectAsync(`mqtt://${given.nodes[node].mqtt}`, { protocolVersion: 5, reconnectPeriod: 0, ...fields })
  clients.push(client)
  return client
}

const { device } = given
const topic = (rest) => `$oc/devices/${device.id}/sys/${rest}`
/** The device: answers each command with what it was told. */
async function fakeDevice() {
  const client = await connect(1, { clientId: device.client_id, username: device.username, password: device.password })
  client.on('message', (name, payload) => {
    const request = /request_id=(.*)$/.exec(name)?.[1]
    const { paras } = JSON.parse(payload)
    client.publish(topic(`commands/response/request_id=${request}`), JSON.stringify({ result_code: 0, response_name: 'DONE', paras: { now: paras.value } }))
  })
  await client.subscribeAsync(topic('commands/#'))
  return client
}
const report = (client, value) => client.publishAsync(topic('properties/report'), JSON.stringify({ services: [{ service_id: 'WaterMeter', properties: { value } }] }), { qos: 1 })

let end = ['done', {}]
try {
  const page = await browser.newPage()
  page.on('console', (message) => { if (message.type() === 'error') wrong.push(`console: ${message.text()}`) })
  page.on('pageerror', (error) => wrong.push(`page: ${error}`))
  page.on('request', (request) => { if (!request.url().startsWith(`${base}/console/`) && !/^(data|blob):/.test(request.url())) wrong.push(`request: ${request.url()}`) })
  await page.setViewport({ width: 1440, height: 900 })

  const text = (selector, wanted) => page.waitForFunction((at, what) => [...document.querySelectorAll(at)].some((one) => one.textContent.includes(what)), WAIT, selector, wanted)
  const press = async (name, within = 'main, dialog') => {
    const found = await page.waitForFunction((wanted, place) => [...document.querySelectorAll(place)].flatMap((one) => [...one.querySelectorAll('button, a.button')]).find((one) => one.textContent.trim() === wanted && !one.disabled), WAIT, name, within)
    await found.click()
  }
  const go = async (path, shown) => {
    await page.evaluate((to) => { location.hash = `#/${to}` }, path)
    await page.waitForFunction((name) => document.querySelector('main')?.dataset.page === name && !document.querySelector('main [aria-busy=true]'), WAIT, path.split('/')[0].split('?')[0])
    if (shown) await text('main', shown)
  }

  await page.goto(`${base}/console/`)
  await page.waitForSelector('input[name=user]', WAIT)
  await page.type('input[name=user]', given.user)
  await page.type('input[name=password]', given.password)
  await page.keyboard.press('Enter')
  await text('h1', 'Overview')
  await page.waitForSelector('.map .node.leader', WAIT)
  step('signed in, and the map shows who leads')

  await go(`device/${device.id}`)
  await text('.badge', 'inactive')
  const firmware = await fakeDevice()
  await text('.badge', 'online')
  step('a device connects, and is seen to')

  await page.select('select[name="p:value"]', 'OFF')
  await press('Send the command')
  await text('pre', '"now": "OFF"')
  step('a command is answered')

  await press('Listen')
  await text('p', 'Listening')
  await report(firmware, 11)
  await text('.feed', '"value":11')
  await press('Stop')
  step('what it sends is seen live')

  await go('rule/new')
  await page.type('input[name=rule_name]', `console ${given.suffix}`)
  await page.type('textarea[name=where]', 'notify_data.body.services[0].properties.value >> 20')
  await press('Make the rule')
  await text('.problem', 'Column 48')
  check(await page.$eval('.editor mark', (mark) => mark.textContent) === '>', 'the second > is underlined')
  step('a mistake is shown where it is')
  await page.$eval('textarea[name=where]', (area) => { area.value = '' })
  await page.type('textarea[name=where]', `notify_data.body.services[0].properties.value > 20 AND notify_data.header.device_id = '${device.id}'`)
  await page.$eval('textarea[name=event]', (area, id) => { area.value = area.value.replace('"device_id": "meter"', `"device_id": "${id}"`) }, device.id)
  await press('Test with the sample')
  await text('[data-result]', 'matches')
  await press('Make the rule')
  await text('h1', `console ${given.suffix}`)
  await press('Start')
  await text('.page-head .badge', 'active')
  await page.waitForSelector('[data-counter=Matched]', WAIT)
  step('mended, tested, made and started')
  const matched = () => page.evaluate(() => Number(document.querySelector('[data-counter=Matched]')?.textContent ?? 0))
  // The counters are those of the node that is asked: the device comes to it.
  await firmware.endAsync()
  const here = await connect(0, { clientId: device.client_id, username: device.username, password: device.password })
  await report(here, 25)
  await page.waitForFunction(() => Number(document.querySelector('[data-counter=Matched]')?.textContent) >= 1, WAIT)
  check(await matched() >= 1, 'the rule has matched')
  step('its counter rises')
  await press('Delete')
  await press('Delete', 'dialog')
  await text('h1', 'Rules')

  const subject = `console/${given.suffix}`
  await go('trace')
  await page.select('select[name=kind]', 'topic')
  await page.type('input[name=what]', subject)
  await press('Start the trace')
  await text('h1', 'Trace')
  await text('main', 'No message yet')
  const taker = await connect(1, { clientId: `taker-${given.suffix}` })
  await taker.subscribeAsync(subject, { qos: 1 })
  const giver = await connect(0, { clientId: `giver-${given.suffix}` })
  await giver.publishAsync(subject, 'over two nodes', { qos: 1 })
  await text('.badge', '2 nodes')
  check(await page.$$eval('.lanes circle', (points) => points.length) >= 4, 'its hops are drawn')
  await press('Stop')
  step('a message is traced across two nodes')

  for (const width of [1440, 360]) {
    await page.setViewport({ width, height: 800 })
    for (const theme of ['light', 'dark']) {
      await page.evaluate((wanted) => { document.documentElement.dataset.theme = wanted }, theme)
      for (const path of PAGES) {
        await go(path)
        const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
        if (over > 1) wrong.push(`${path} at ${width}: ${over} pixels too wide`)
        if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe)
        const found = await page.evaluate(() => axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations.filter((one) => ['serious', 'critical'].includes(one.impact)).map((one) => `${one.id} ${one.nodes[0].target}`)))
        found.forEach((what) => wrong.push(`${path} at ${width}, ${theme}: axe ${what}`))
      }
    }
  }
  step('every page, wide and narrow, light and dark')

  await page.setViewport({ width: 360, height: 760 })
  await go('devices')
  await page.keyboard.press('/')
  check(await page.evaluate(() => document.activeElement.matches('[data-search]')), '/ goes to the search')
  await page.click('.menu-button')
  await page.waitForSelector('.side.open', WAIT)
  await page.keyboard.press('Escape')
  await page.waitForFunction(() => !document.querySelector('.side.open'), WAIT)
  await page.click('[aria-label="Sign out"]')
  await page.waitForSelector('input[name=user]', WAIT)
  const after = await page.evaluate(() => fetch('api/devices.list', { method: 'POST', headers: { 'X-Fulmar-Console': '1' } }).then((answer) => answer.status))
  check(after === 401, `signed out, a call is answered ${after}`)
  // That one answer is meant to be an error.
  const rest = wrong.filter((what) => !what.includes('401'))
  check(!rest.length, [...new Set(rest)].slice(0, 12).join('; '))
  step('signed out')
} catch (error) {
  const unheard = wrong.length ? `; ${[...new Set(wrong)].slice(0, 8).join('; ')}` : ''
  end = ['error', { what: `${error instanceof Wrong ? error.message : error.stack.split('\n').slice(0, 4).join(' ')}${unheard}` }]
} finally {
  clients.forEach((client) => client.end(true))
  await browser.close()
  // Whoever hears it ends this program, and the browser must have gone by then.
  tell(...end)
}
