import { InvalidArgumentError, type Command } from 'commander'
import { ConfigError } from '../config.ts'
import type { Env } from './terminal.ts'

/** The server that a command talks to, and as whom. */
export interface Target {
  readonly url: string
  readonly token: string | undefined
}

/** The options that say so. */
export type TargetOptions = Partial<Target>

const DEFAULT_URL = 'http://127.0.0.1:3000'

/** Adds the options to a command. */
export function addTarget(command: Command): Command {
  return command
    .option('--url <address>', `where the server is; default: RINGSIDE_URL, else ${DEFAULT_URL}`, readUrl)
    .option('--token <jwt>', 'a token, where the server asks for one; default: RINGSIDE_TOKEN', text =>
      checked(text.trim(), whatIsWrongWithToken)
    )
}

/** What the options say, else the environment. Throws a `ConfigError` for what is wrong in there. */
export function targetOf({ url, token }: TargetOptions, env: Env): Target {
  return {
    url: url ?? variable('RINGSIDE_URL', env, whatIsWrongWithUrl) ?? DEFAULT_URL,
    token: token ?? variable('RINGSIDE_TOKEN', env, whatIsWrongWithToken)
  }
}

/** Reads an address that is given on the command line. */
export function readUrl(text: string): string {
  return checked(text, whatIsWrongWithUrl)
}

/** Says what is wrong with a text; undefined where nothing is. */
type Check = (text: string) => string | undefined

function checked(text: string, check: Check): string {
  const wrong = check(text)
  if (wrong === undefined) return text
  throw new InvalidArgumentError(wrong)
}

/** Undefined where it is not set, or empty. */
function variable(name: string, env: Env, check: Check): string | undefined {
  const text = env[name]?.trim()
  if (!text) return undefined
  const wrong = check(text)
  if (wrong === undefined) return text
  throw new ConfigError(`${name}: ${wrong}`)
}

function whatIsWrongWithUrl(text: string): string | undefined {
  if (!/^https?:\/\//.test(text) || !URL.canParse(text)) return `An address such as ${DEFAULT_URL}.`
  const { username, password } = new URL(text)
  if (username !== '' || password !== '') return 'Who you are is no part of it: use a token.'
  return undefined
}

/** It is never repeated: it would be in somebody's log. */
function whatIsWrongWithToken(text: string): string | undefined {
  return /^[\w.~+/=-]+$/.test(text) ? undefined : 'It has characters that no token has.'
}
