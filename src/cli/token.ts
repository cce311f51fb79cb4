import { parse as parseDuration } from '@lukeed/ms'
import { InvalidArgumentError, type Command } from 'commander'
import { ConfigError, readSettings } from '../config.ts'
import { parsePattern } from '../event.ts'
import { signToken, type Signer } from '../access/signing.ts'
import { addExamples } from './help.ts'
import type { Env } from './terminal.ts'

interface Options {
  sub?: string
  subscribe?: string[]
  publish?: string[]
  admin?: boolean
  /** Seconds. */
  expires?: number
  key?: string
  kid?: string
  audience?: string
  issuer?: string
}

/**
 * Adds `ringside token`: it signs a token, as section 7 of the contract has it, and prints it. It fails with a `ConfigError`
 * for a key that can't sign.
 */
export function addToken(program: Command, env: Env, print: (text: string) => void): void {
  const command = program
    .command('token')
    .description('sign a token with JWT_SECRET or a private key, and print it')
    .option('--sub <user>', 'whose it is', readUser)
    .option(
      '--subscribe <pattern...>',
      "what may be read, such as 'tickers/*' or 'dashboards/**'",
      addPattern
    )
    .option('--publish <pattern...>', 'what may be published on', addPattern)
    .option('--admin', 'for who operates the server: /admin, and what scripts ask of /admin/api')
    .option('--expires <duration>', 'how long it is good, such as 90s, 15m or 7d; default: 1h', readSeconds)
    .option('--key <file>', 'sign with this private key in PEM: RS256, ES256 or EdDSA, by its kind')
    .option('--kid <id>', 'what the key is called in its key set')
    .option('--audience <name>', 'whom it is for; default: the first of JWT_AUDIENCE')
    .option('--issuer <name>', 'who issues it; default: the first of JWT_ISSUER')
    .action(async (options: Options, command: Command) => {
      if (!options.sub && !options.subscribe && !options.publish && !options.admin) {
        command.error('error: a token needs --sub, --subscribe, --publish or --admin')
      }
      print(`${await sign(options, env)}\n`)
    })
  addExamples(
    command,
    "ringside token --sub alice --subscribe 'tickers/*' --expires 15m",
    "RINGSIDE_TOKEN=$(ringside token --publish 'chat/**') ringside pub chat/general 'Hello!'",
    'ringside token --sub ops --admin --expires 8h',
    'ringside token --sub alice --key private.pem --kid 2026-11'
  )
}

function sign(options: Options, env: Env): Promise<string> {
  const { sub, subscribe = [], publish = [], admin, expires = 3600, key, kid, audience, issuer } = options
  return signToken(
    {
      ...{ sub, subscribe, publish, admin, expires },
      // what the server with this environment asks for
      audience: audience ?? firstOf(env['JWT_AUDIENCE']),
      issuer: issuer ?? firstOf(env['JWT_ISSUER'])
    },
    key === undefined ? secretOf(env) : { file: key, kid }
  )
}

function secretOf({ JWT_SECRET }: Env): Signer {
  const { JWT_SECRET: secret } = readSettings({ JWT_SECRET })
  if (secret !== '') return { secret }
  throw new ConfigError('JWT_SECRET: is not set; it signs the token, unless there is a --key')
}

function firstOf(list = ''): string | undefined {
  return list.split(',')[0]!.trim() || undefined
}

// --- options ---

function readUser(text: string): string {
  if (text !== '') return text
  throw new InvalidArgumentError('It is empty.')
}

function addPattern(text: string, before: string[] = []): string[] {
  if (parsePattern(text)) return [...before, text]
  throw new InvalidArgumentError('Segments joined by /; * for any one, ** at the end for any number.')
}

function readSeconds(text: string): number {
  const ms = /^\d+$/.test(text)
    ? Number(text) * 1000
    : /^\d+(\.\d+)? ?(s|m|h|d)$/.test(text) && parseDuration(text)
  if (ms) return Math.ceil(ms / 1000)
  throw new InvalidArgumentError('A duration such as 90s, 15m, 1h or 7d.')
}
