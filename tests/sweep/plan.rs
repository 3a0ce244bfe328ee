//! Which calls go wrong: all that are made when nothing does, or some of them.

use crate::calls::{CLASSES, ROLES};
use crate::inject::Order;
use crate::run::{self, Point, SUBJECTS};
use crate::tell;

/// An order as [`crate::traced`] writes it, `<role> <class> <fault> <number>`; `-` is none.
pub fn order(text: &str) -> Option<Order> {
    let [role, class, fault, number] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let role = ROLES.into_iter().find(|it| it.word() == role)?;
    let class = CLASSES.into_iter().find(|it| it.word() == class)?;
    let fault = *class.faults().iter().find(|it| it.word() == fault)?;
    Some(Order { role, class, fault, number: number.parse().ok()? })
}

/// The runs to be made; `wanted` are a subject, a class, a fault and a number, or the first of these.
pub fn points(wanted: &[String]) -> Result<Vec<Point>, String> {
    let is_wanted = |at: usize, word: &str| wanted.get(at).is_none_or(|it| it == word);
    let mut groups: Vec<Vec<Point>> = Vec::new();
    for subject in SUBJECTS.into_iter().filter(|it| is_wanted(0, it.word())) {
        let counts =
            run::count(subject).map_err(|error| format!("{} can't be counted: {error}", subject.word()))?;
        for class in CLASSES.into_iter().filter(|it| is_wanted(1, it.word())) {
            for fault in class.faults().iter().copied().filter(|it| is_wanted(2, it.word())) {
                let words = [subject.role().word(), class.word(), fault.word()].map(str::to_owned);
                let calls = counts.get(&words.into()).copied().unwrap_or(0);
                let numbers = (1..=calls).filter(|number| is_wanted(3, &number.to_string()));
                groups.push(numbers.map(|number| Point { subject, class, fault, number }).collect());
            }
        }
    }
    if groups.iter().all(Vec::is_empty) {
        return Err(format!("there is no call {}", wanted.join(" ")));
    }
    Ok(chosen(groups))
}

/// All calls, each so many, or so many in all: then as many of each group as there are, from the seed on.
fn chosen(groups: Vec<Vec<Point>>) -> Vec<Point> {
    let all: usize = groups.iter().map(Vec::len).sum();
    let seed = variable("SWEEP_SEED").unwrap_or(0);
    if let Some(every) = variable("SWEEP_EVERY") {
        return groups.into_iter().flat_map(|group| group.into_iter().step_by(every.max(1))).collect();
    }
    let Some(count) = variable("SWEEP_SAMPLE").filter(|count| *count < all) else {
        return groups.concat();
    };
    tell(&format!("{count} of {all} runs, SWEEP_SEED={seed}"));
    let most = groups.iter().map(Vec::len).max().unwrap_or(0);
    // A step that is prime to most lengths comes by everywhere.
    let at =
        |round: usize, group: &Vec<Point>| group.get((seed + round) * 7919 % group.len().max(1)).copied();
    let rounds = (0..most).flat_map(|round| {
        groups.iter().filter(move |group| round < group.len()).filter_map(move |group| at(round, group))
    });
    rounds.take(count).collect()
}

fn variable(name: &str) -> Option<usize> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}
