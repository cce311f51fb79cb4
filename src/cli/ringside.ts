#!/usr/bin/env -S node --min-semi-space-size=4 --max-semi-space-size=16
// Where what has just been made lives: older Nodes have these 16 MiB by themselves, Node 24 would take 100; and one that
// begins with less than 4 takes all that is under way when connections come at once for long-lived
import { once } from 'node:events'
import { run } from './program.ts'

const gone = new AbortController()
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  gone.abort()
})

process.exitCode = await run(process.argv.slice(2), process.env, {
  out: text => process.stdout.write(text),
  err: text => process.stderr.write(text),
  ready: () => (process.stdout.writableNeedDrain ? once(process.stdout, 'drain') : undefined),
  gone: gone.signal
})
