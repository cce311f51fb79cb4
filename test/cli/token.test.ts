import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import t, { type Test } from 'tap'
import { run } from '../../src/cli/program.ts'
import { ask, build, post } from '../support/app.ts'
import { exitOf, run as runProcess } from '../support/process.ts'
import { bearer, makeKeys, SECRET } from '../support/tokens.ts'

const dir = t.testdir()

type Env = Readonly<Record<string, string>>

/** What a call of the command has come to. */
interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** The command, in this process: a process takes half a second to begin. */
async function token(args: readonly string[], env: Env): Promise<Outcome> {
  const written = { stdout: '', stderr: '' }
  const code = await run(['token', ...args], env, {
    out: text => (written.stdout += text),
    err: text => (written.stderr += text)
  })
  return { code, ...written }
}

/** The same in a process of its own, as a user runs it. */
async function tokenInProcess(t: Test, args: readonly string[], env: Env): Promise<Outcome> {
  const started = runProcess(t, ['token', ...args], env)
  const { code } = await exitOf(started)
  return { code, stdout: started.stdout(), stderr: started.stderr() }
}

function isToken(t: Test, { code, stdout, stderr }: Outcome): string {
  t.equal(code, 0, stderr)
  t.equal(stderr, '')
  t.match(stdout, /^[\w-]+\.[\w-]+\.[\w-]+\n$/, 'the token, and nothing else')
  return stdout.trim()
}

async function made(t: Test, args: readonly string[], env: Env = { JWT_SECRET: SECRET }): Promise<string> {
  return isToken(t, await token(args, env))
}

function hasFailed(t: Test, { code, stdout, stderr }: Outcome, expected: number, says: RegExp): void {
  t.equal(code, expected, stderr)
  t.match(stderr, says)
  t.equal(stdout, '')
}

async function fails(
  t: Test,
  args: readonly string[],
  code: number,
  says: RegExp,
  env: Env = {}
): Promise<void> {
  hasFailed(t, await token(args, env), code, says)
}

t.test('as a process it writes and exits as it should', async t => {
  const env = { JWT_SECRET: SECRET }
  const [good, wrong, failed, help] = await Promise.all([
    tokenInProcess(t, ['--sub', 'a'], env),
    tokenInProcess(t, ['--sub', ''], env),
    tokenInProcess(t, ['--sub', 'a'], {}),
    tokenInProcess(t, ['--help'], {})
  ])
  t.equal(decodeJwt(isToken(t, good)).sub, 'a')
  hasFailed(t, wrong, 2, /empty/)
  hasFailed(t, failed, 1, /^ringside: JWT_SECRET: is not set.*\n$/)
  t.match(help, { code: 0, stdout: /--expires/, stderr: '' })
})

t.test('signs with JWT_SECRET what the server takes', async t => {
  const env = { JWT_SECRET: SECRET, JWT_AUDIENCE: 'live,other', JWT_ISSUER: 'us' }
  const server = await build(t, env)
  const token = await made(
    t,
    ['--sub', 'alice', '--subscribe', 'tickers/*', 'a/**', '--publish', 'a/**', '--expires', '15m'],
    env
  )
  const { exp, iat, ...claims } = decodeJwt(token)
  t.strictSame(claims, {
    sub: 'alice',
    aud: 'live',
    iss: 'us',
    ringside: { subscribe: ['tickers/*', 'a/**'], publish: ['a/**'] }
  })
  t.equal(exp! - iat!, 900)
  t.equal((await post(server, '/events/a/b', 'x', bearer(token))).status, 201)
  t.equal((await post(server, '/events/b', 'x', bearer(token))).status, 403)
})

t.test('is for who operates the server', async t => {
  const server = await build(t, { JWT_SECRET: SECRET })
  const token = await made(t, ['--sub', 'ops', '--admin'])
  t.strictSame(decodeJwt(token)['ringside'], { subscribe: [], publish: [], admin: true })
  t.equal((await ask(server, '/admin/api/settings', { headers: bearer(token) })).status, 200)
})

t.test('is good for an hour, unless it says something else', async t => {
  for (const [args, seconds] of [
    [[], 3600],
    [['--expires', '90'], 90],
    [['--expires', '1.5h'], 5400],
    [['--expires', '7d'], 604_800]
  ] as const) {
    const { exp, iat } = decodeJwt(await made(t, ['--publish', 'a', '--publish', 'b', ...args]))
    t.equal(exp! - iat!, seconds)
  }
})

t.test('signs with a private key, by its kind', async t => {
  for (const alg of ['RS256', 'ES256', 'EdDSA'] as const) {
    const { privateKey, pem } = makeKeys(alg)
    const file = join(dir, `${alg}.pem`)
    writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }))
    const token = await made(t, ['--sub', 'bob', '--key', file, '--kid', 'k1'], {})
    t.match(decodeProtectedHeader(token), { alg, kid: 'k1' })
    const server = await build(t, { JWT_PUBLIC_KEY: pem })
    t.equal((await ask(server, '/dashboards', { headers: bearer(token) })).status, 200)
    await fails(t, ['--sub', 'bob', '--key', join(dir, 'none.pem')], 1, /none\.pem.*read/)
    writeFileSync(file, pem)
    await fails(t, ['--sub', 'bob', '--key', file], 1, /no such key/)
  }
})

t.test('says what is wrong: 2 for how it was called, 1 for what it has not got', async t => {
  await fails(t, [], 2, /--sub, --subscribe, --publish or --admin/)
  await fails(t, ['--sub'], 2, /--sub/)
  await fails(t, ['--sub', ''], 2, /empty/)
  await fails(t, ['--subscribe', 'a/**/b'], 2, /a\/\*\*\/b/)
  await fails(t, ['--publish', 'a', '/b'], 2, /\/b/)
  for (const expires of ['0', '0s', 'soon', '-1h', '1y', '1e3'])
    await fails(t, ['--sub', 'a', `--expires=${expires}`], 2, /duration/)
  await fails(t, ['--nonsense'], 2, /--nonsense/)
  await fails(t, ['--sub', 'a'], 1, /JWT_SECRET: is not set/)
  await fails(t, ['--sub', 'a'], 1, /32 bytes/, { JWT_SECRET: 'short' })
  t.match(await token(['--help'], {}), { code: 0, stdout: /--expires/, stderr: '' })
})
