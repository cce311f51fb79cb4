import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { ConfigError } from '../config.ts'
import { addCompletion } from './completion.ts'
import { addDoctor } from './doctor.ts'
import { Failed } from './failed.ts'
import { addExamples } from './help.ts'
import { addPub } from './pub.ts'
import { addReplay } from './replay.ts'
import { addStore } from './store.ts'
import { addSub } from './sub.ts'
import type { Env, Terminal } from './terminal.ts'
import { addToken } from './token.ts'

const { version, description } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
) as Record<string, string>

/**
 * Runs the command of these arguments (those after the program's name; without any, `serve`) with this environment.
 * Resolves with the status to exit with: 0 when it is done, and for the server as soon as it listens; 1 when it can't be
 * done; 2 when it was called in a wrong way.
 */
export async function run(args: readonly string[], env: Env, terminal: Terminal): Promise<number> {
  try {
    // not as commander's default command: it would take a command that is misspelt for an argument of `serve`
    await programFor(env, terminal).parseAsync(args.length === 0 ? ['serve'] : args, { from: 'user' })
    return 0
  } catch (error) {
    // it has said what is wrong; help and the version are no error
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    if (!(error instanceof ConfigError || error instanceof Failed)) throw error
    terminal.err(`ringside: ${error.message}\n`)
    return 1
  }
}

function programFor(env: Env, terminal: Terminal): Command {
  const { out, err } = terminal
  const program = new Command('ringside')
    .version(version!)
    .description(description!)
    // its commands inherit all three
    .configureOutput({ writeOut: out, writeErr: err })
    .exitOverride()
    .showHelpAfterError('(--help says how it is called)')
  addExamples(
    program,
    'ringside serve',
    'ringside sub orders',
    "ringside pub orders 'Hello!'",
    'ringside help sub'
  )
  const serve = program
    .command('serve')
    .description('run the server; it is configured by environment variables')
    .action(async () => {
      // the other commands need not wait for all that it loads
      const { serve } = await import('../process/server.ts')
      await serve(env)
    })
  addExamples(
    serve,
    'ringside serve',
    'PORT=8080 DATA_DIR=/var/lib/ringside ringside serve',
    'REDIS_URL=redis://127.0.0.1:6379 JWT_SECRET=$(openssl rand -hex 32) ringside serve'
  )
  addSub(program, env, terminal)
  addPub(program, env, terminal)
  addReplay(program, env, terminal)
  addDoctor(program, env, terminal)
  addToken(program, env, out)
  addStore(program, env, out)
  addCompletion(program)
  return program
}
