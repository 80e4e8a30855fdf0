//! What a key means.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::top::act::Deed;

/// What is asked for by a key while trees are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Quit,
    /// So many lines down, or up.
    Move(isize),
    /// So many screens down, or up.
    Page(isize),
    First,
    Last,
    Fold,
    Do(Deed),
    /// By the next column; by the one before with `false`.
    Order(bool),
    Reverse,
    Filter,
    ShowAll,
    Help,
    Redraw,
    Suspend,
}

/// The character that a key types, and whether Ctrl is held.
fn typed(event: &KeyEvent) -> Option<(char, bool)> {
    let KeyCode::Char(c) = event.code else { return None };
    Some((c, event.modifiers.contains(KeyModifiers::CONTROL)))
}

pub(crate) fn is_press(event: &KeyEvent) -> bool {
    event.kind != KeyEventKind::Release
}

pub(crate) fn meaning(event: &KeyEvent) -> Option<Key> {
    Some(match event.code {
        KeyCode::Up => Key::Move(-1),
        KeyCode::Down => Key::Move(1),
        KeyCode::PageUp => Key::Page(-1),
        KeyCode::PageDown => Key::Page(1),
        KeyCode::Home => Key::First,
        KeyCode::End => Key::Last,
        KeyCode::Enter | KeyCode::Left | KeyCode::Right => Key::Fold,
        KeyCode::Esc => Key::ShowAll,
        _ => return of_character(typed(event)?),
    })
}

fn of_character((c, ctrl): (char, bool)) -> Option<Key> {
    Some(match (c, ctrl) {
        ('c', true) | ('q', false) => Key::Quit,
        ('l', true) => Key::Redraw,
        ('z', true) => Key::Suspend,
        (' ', false) => Key::Fold,
        ('s', false) => Key::Do(Deed::Stop),
        ('k', false) => Key::Do(Deed::Kill),
        ('f', false) => Key::Do(Deed::Freeze),
        ('t', false) => Key::Do(Deed::Thaw),
        ('o', false) => Key::Order(true),
        ('O', false) => Key::Order(false),
        ('r', false) => Key::Reverse,
        ('/', false) => Key::Filter,
        ('?' | 'h', false) => Key::Help,
        _ => return None,
    })
}

/// What a key does to a filter that is being typed; false once it is typed.
pub(crate) fn edit(filter: &mut String, event: &KeyEvent) -> bool {
    match (event.code, typed(event)) {
        (KeyCode::Enter, _) => return false,
        (KeyCode::Esc, _) | (_, Some(('c', true))) => {
            filter.clear();
            return false;
        }
        (KeyCode::Backspace, _) => drop(filter.pop()),
        (_, Some(('u', true))) => filter.clear(),
        (_, Some((c, false))) if filter.chars().count() < 60 => filter.push(c),
        _ => {}
    }
    true
}
