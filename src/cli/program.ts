import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { ConfigError } from '../config.ts'
import { Failed } from './failed.ts'
import { addStore } from './store.ts'
import { addToken } from './token.ts'

/** Where a command writes. */
export interface Terminal {
  out(text: string): void
  err(text: string): void
}

const { version, description } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
) as Record<string, string>

/**
 * Runs the command of these arguments (those after the program's name) with this environment. Resolves with the status to
 * exit with: 0 when it is done, and for the server as soon as it listens; 1 when it can't be done; 2 when it was called
 * in a wrong way.
 */
export async function run(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  terminal: Terminal
): Promise<number> {
  try {
    await programFor(env, terminal).parseAsync(args, { from: 'user' })
    return 0
  } catch (error) {
    // it has said what is wrong; help and the version are no error
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    if (!(error instanceof ConfigError || error instanceof Failed)) throw error
    terminal.err(`ringside: ${error.message}\n`)
    return 1
  }
}

function programFor(env: Readonly<Record<string, string | undefined>>, { out, err }: Terminal): Command {
  const program = new Command('ringside')
    .version(version!)
    .description(description!)
    // its commands inherit both
    .configureOutput({ writeOut: out, writeErr: err })
    .exitOverride()
  program
    .command('serve', { isDefault: true })
    .description('run the server; it is configured by environment variables')
    .action(async () => {
      // the other commands need not wait for all that it loads
      const { serve } = await import('../process/server.ts')
      await serve(env)
    })
  addToken(program, env, out)
  addStore(program, env, out)
  return program
}
