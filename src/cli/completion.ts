import tab from '@bomb.sh/tab/commander'
import type { Command } from 'commander'
import { addExamples } from './help.ts'

/** Adds `ringside completion`, and what its scripts ask when a word is to be completed. To be called last. */
export function addCompletion(program: Command): void {
  tab(program, { completionCommandName: 'completion' })
  const command = program.commands.find(command => command.name() === 'completion')!
  addExamples(
    command,
    'source <(ringside completion bash)',
    'ringside completion zsh > "${fpath[1]}/_ringside"',
    'ringside completion fish > ~/.config/fish/completions/ringside.fish'
  )
}
