#!/usr/bin/env -S node --min-semi-space-size=4 --max-semi-space-size=16
// Where what has just been made lives: older Nodes have these 16 MiB by themselves, Node 24 would take 100; and one that
// begins with less than 4 takes all that is under way when connections come at once for long-lived
import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import { addToken } from './token.ts'

const { version, description } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
) as Record<string, string>

const program = new Command('ringside')
  .version(version!)
  .description(description!)
  // its commands inherit it
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))

program
  .command('serve', { isDefault: true })
  .description('run the server; it is configured by environment variables')
  .action(async () => {
    // the other commands need not wait for all that it loads
    const { serve } = await import('../process/server.ts')
    await serve(process.env)
  })

addToken(program, process.env)

await program.parseAsync()
