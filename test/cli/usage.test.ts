import { spawnSync } from 'node:child_process'
import t, { type Test } from 'tap'
import { run } from '../../src/cli/program.ts'
import { exitOf, run as runProcess } from '../support/process.ts'

/** What a call of the command has come to. */
interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

async function call(args: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  const written = { stdout: '', stderr: '' }
  const code = await run(args, env, {
    out: text => (written.stdout += text),
    err: text => (written.stderr += text)
  })
  return { code, ...written }
}

async function fails(t: Test, args: readonly string[], says: RegExp, code = 2, env = {}): Promise<void> {
  const outcome = await call(args, env)
  t.match(outcome, { code, stdout: '', stderr: says }, args.join(' '))
}

const COMMANDS = ['serve', 'sub', 'pub', 'replay', 'doctor', 'token', 'store', 'completion']

t.test('every command helps, with examples', async t => {
  const { code, stdout, stderr } = await call(['--help'])
  t.equal(code, 0)
  t.equal(stderr, '')
  for (const command of COMMANDS) {
    t.match(stdout, new RegExp(`^  ${command} `, 'm'))
    for (const args of [
      [command, '--help'],
      ['help', command]
    ])
      t.match(
        await call(args),
        { code: 0, stdout: /^Examples:\n {2}\$ .*ringside /m, stderr: '' },
        args.join(' ')
      )
  }
  t.notMatch(stdout, /^ {2}complete /m)
})

t.test('a near miss is named', async t => {
  await fails(t, ['serv'], /unknown command 'serv'\n\(Did you mean serve\?\)/)
  await fails(t, ['pubb', 'a', 'b'], /Did you mean one of pub, sub\?|Did you mean pub\?/)
  await fails(t, ['store', 'chek'], /Did you mean check\?/)
  await fails(t, ['sub', 'a', '--jsn'], /unknown option '--jsn'\n\(Did you mean --json\?\)/)
  await fails(t, ['nonsense'], /unknown command 'nonsense'/)
})

t.test('what is called in a wrong way exits with 2, and says why', async t => {
  await fails(t, ['sub'], /missing required argument 'topic'/)
  await fails(t, ['sub', 'a//b'], /a\/\/b.*Segments joined by \//)
  await fails(t, ['sub', 'a/*/b'], /Segments/)
  await fails(t, ['sub', 'a/**'], /\*\* is for tokens/)
  for (const rewind of ['-1', '1001', 'x'])
    await fails(t, ['sub', 'a', `--rewind=${rewind}`], /from 0 to 1000/)
  for (const rate of ['0', '101', 'x']) await fails(t, ['sub', 'a', `--rate=${rate}`], /from 0\.1 to 100/)
  await fails(t, ['pub', 'a'], /missing required argument 'data'/)
  await fails(t, ['pub', 'a/*', 'x'], /Segments/)
  await fails(t, ['pub', 'a/../b', 'x'], /\. or \.\./)
  await fails(t, ['pub', 'a', 'x', '--type', 'a b'], /A-Z/)
  await fails(t, ['pub', 'a', 'x', '--key', 'a b'], /visible/)
  await fails(t, ['pub', 'a', 'x', 'y'], /too many arguments/)
  await fails(t, ['pub', 'a', 'x', '--url', 'localhost:3000'], /An address such as http:/)
  await fails(t, ['pub', 'a', 'x', '--url', 'http://me:secret@host'], /use a token/)
  await fails(t, ['pub', 'a', 'x', '--token', 'a\nb'], /characters that no token has/)
  await fails(t, ['replay'], /missing required argument 'file'/)
  for (const speed of ['0', '-1', 'Infinity', 'x'])
    await fails(t, ['replay', 'a.csv', `--speed=${speed}`], /above 0/)
  for (const minutes of ['0', '-1', '1441', 'x'])
    await fails(t, ['doctor', `--minutes=${minutes}`], /above 0, up to 1440/)
  await fails(t, ['doctor', 'localhost:3000'], /An address such as http:/)
  await fails(t, ['doctor', '--origin', 'https://app.example/page'], /without a path/)
  await fails(t, ['completion', 'sh'], /zsh, bash, fish/)
  await fails(t, ['pub', 'a', 'x'], /^ringside: RINGSIDE_URL: An address/, 1, { RINGSIDE_URL: 'nowhere' })
  await fails(t, ['pub', 'a', 'x'], /^ringside: RINGSIDE_TOKEN: It has/, 1, { RINGSIDE_TOKEN: 'a b' })
})

t.test('completes commands and options, by scripts that shells can read', async t => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const written = runProcess(t, ['completion', shell])
    t.match(await exitOf(written), { code: 0 })
    t.equal(written.stderr(), '')
    t.match(written.stdout(), /ringside/)
    // fish and zsh only where they are
    const { error, status, stderr } = spawnSync(shell, ['-n'], { input: written.stdout(), encoding: 'utf8' })
    if (error && shell !== 'bash') t.comment(`${shell} is not here`)
    else t.equal(status, 0, stderr)
  }
  for (const [words, suggested] of [
    [['s'], /^sub\t?/m],
    [['pub', 'a', '--'], /^--key\t?/m],
    [['store', ''], /^check\t?/m]
  ] as const) {
    const completed = runProcess(t, ['complete', '--', ...words])
    t.match(await exitOf(completed), { code: 0 })
    t.match(completed.stdout(), suggested)
  }
})
