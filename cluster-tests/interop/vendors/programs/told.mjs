// What the programs in JavaScript share: events out, commands in, as lines of JSON.

import { createRequire } from 'node:module'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

// The packages are installed in a cache folder, not beside these files.
export const require = createRequire(join(process.env.INTEROP_VENDORS_NODE_DIR, 'package.json'))

export const given = JSON.parse(process.argv[2])

export function tell(event, fields = {}) {
  process.stdout.write(`\n@@${JSON.stringify({ event, ...fields })}\n`)
}

export async function commands(handlers) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: command, ...fields } = JSON.parse(line)
    await handlers[command](fields)
  }
}
