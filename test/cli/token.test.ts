import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import t, { type Test } from 'tap'
import { ask, build, post } from '../support/app.ts'
import { exitOf, run, serve } from '../support/process.ts'
import { bearer, makeKeys, SECRET } from '../support/tokens.ts'

// each of them is a process of its own
t.setTimeout(200_000)

const dir = t.testdir()
async function made(
  t: Test,
  args: readonly string[],
  env: Record<string, string> = { JWT_SECRET: SECRET }
): Promise<string> {
  const process = run(t, ['token', ...args], env)
  t.strictSame(await exitOf(process), { code: 0, signal: null }, process.stderr())
  t.equal(process.stderr(), '')
  const token = process.stdout()
  t.match(token, /^[\w-]+\.[\w-]+\.[\w-]+\n$/, 'the token, and nothing else')
  return token.trim()
}
async function fails(
  t: Test,
  args: readonly string[],
  code: number,
  says: RegExp,
  env: Record<string, string> = {}
): Promise<void> {
  const process = run(t, ['token', ...args], env)
  t.strictSame(await exitOf(process), { code, signal: null }, args.join(' '))
  t.match(process.stderr(), says)
  t.equal(process.stdout(), '')
}

t.test('signs with JWT_SECRET what the server takes', async t => {
  const env = { JWT_SECRET: SECRET, JWT_AUDIENCE: 'live,other', JWT_ISSUER: 'us' }
  const server = await serve(t, env)
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
  await fails(t, [], 2, /--sub, --subscribe or --publish/)
  await fails(t, ['--sub'], 2, /--sub/)
  await fails(t, ['--sub', ''], 2, /empty/)
  await fails(t, ['--subscribe', 'a/**/b'], 2, /a\/\*\*\/b/)
  await fails(t, ['--publish', 'a', '/b'], 2, /\/b/)
  for (const expires of ['0', '0s', 'soon', '-1h', '1y', '1e3'])
    await fails(t, ['--sub', 'a', `--expires=${expires}`], 2, /duration/)
  await fails(t, ['--nonsense'], 2, /--nonsense/)
  await fails(t, ['--sub', 'a'], 1, /JWT_SECRET: is not set/)
  await fails(t, ['--sub', 'a'], 1, /32 bytes/, { JWT_SECRET: 'short' })
  const help = run(t, ['token', '--help'])
  t.strictSame(await exitOf(help), { code: 0, signal: null })
  t.match(help.stdout(), /--expires/)
})
