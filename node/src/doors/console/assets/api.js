// Calls of the server, as documents, and its streams.

export class Fault extends Error {
  constructor(status, code, message) {
    super(message)
    this.status = status
    this.code = code
  }
}

let lost = () => {}

/** What to do when the session is over. */
export function onSignedOut(then) { lost = then }

async function ask(method, path, document) {
  let response
  try {
    response = await fetch(path, {
      method,
      headers: { 'X-Fulmar-Console': '1', 'Content-Type': 'application/json' },
      body: document === undefined ? undefined : JSON.stringify(document),
    })
  } catch {
    throw new Fault(0, 'unreachable', 'The server cannot be reached.')
  }
  const said = await response.json().catch(() => ({}))
  if (response.status === 401) lost()
  if (!response.ok) throw new Fault(response.status, '', said.error_msg ?? `The server answered ${response.status}.`)
  if (said.fault) throw new Fault(said.status, said.fault.error_code, said.fault.error_msg)
  return said.body
}

/** Makes a call of the table: `devices.show`, with its document. */
export const call = (name, document = {}) => ask('POST', `api/${name}`, document)

export const session = {
  show: () => ask('GET', 'session'),
  signIn: (user, password) => ask('POST', 'session', { user, password }),
  signOut: () => ask('DELETE', 'session'),
}

/**
 * Opens the stream of a call. `answer` is given each document; a stream that breaks is opened again from the last
 * revision. Returns what closes it.
 */
export function watch(name, document, answer, fault = () => {}) {
  let source, timer, revision, closed = false, pause = 500
  const open = () => {
    const asked = revision === undefined ? document : { ...document, revision }
    source = new EventSource(`stream/${name}?document=${encodeURIComponent(JSON.stringify(asked))}`)
    source.addEventListener('answer', (event) => {
      pause = 500
      const said = JSON.parse(event.data)
      if (said.revision !== undefined) revision = said.revision
      answer(said)
    })
    source.addEventListener('fault', (event) => {
      const said = JSON.parse(event.data)
      source.close()
      // A revision that nobody has any more: from what there is now.
      if (revision !== undefined) { revision = undefined; again() }
      else fault(new Fault(said.status, said.fault.error_code, said.fault.error_msg))
    })
    source.addEventListener('end', () => { source.close(); again() })
    source.onerror = () => { source.close(); again() }
  }
  const again = () => {
    if (closed) return
    clearTimeout(timer)
    timer = setTimeout(open, pause)
    pause = Math.min(pause * 2, 15_000)
  }
  open()
  return () => { closed = true; clearTimeout(timer); source.close() }
}
