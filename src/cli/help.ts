import type { Command } from 'commander'

/** Adds examples to what a command's `--help` says: command lines, without the prompt. */
export function addExamples(command: Command, ...lines: readonly string[]): Command {
  const text = lines.map(line => `  $ ${line}`).join('\n')
  return command.addHelpText('after', `\nExamples:\n${text}`)
}
