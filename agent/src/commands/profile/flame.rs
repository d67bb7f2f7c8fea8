//! Samples → a flame graph in SVG that opens alone: the function that goroutines were started with on top, what they wait for at the bottom, widths
//! by wall time. Few stacks are as deep as the deepest, so a viewer that shows the upper part of a picture shows what most of the time is.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::samples::Sample;
use crate::runtime::go::is_shown;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 17.0;
const MARGIN: f64 = 10.0;
/// Lines of text above the picture.
const TITLE: f64 = 40.0;
/// Narrower parts are not drawn, px.
const NARROWEST: f64 = 0.3;
/// Width of a letter, px.
const LETTER: f64 = 7.0;

#[derive(Default)]
struct Node {
    wall: f64,
    parts: BTreeMap<String, Node>,
}

/// The picture. The runtime's own functions are left out, as the runtime leaves them out of what it prints.
pub(super) fn draw(samples: &[Sample], title: &str) -> String {
    let mut root = Node::default();
    for sample in samples {
        let mut node = &mut root;
        node.wall += sample.wall;
        let functions = sample.stack.iter().flat_map(|at| &at.functions);
        let functions: Vec<&str> = functions.map(|frame| frame.function.as_str()).collect();
        let mut shown = if sample.cpu > 0.0 {
            on_cpu(&functions).to_vec()
        } else {
            let shown = functions.iter().copied().filter(|function| is_shown(function, false));
            shown.collect()
        };
        if shown.is_empty() {
            shown = functions;
        }
        let state = format!("[{}]", sample.reason.as_deref().unwrap_or(sample.state));
        for name in shown.into_iter().rev().chain([state.as_str()]) {
            node = node.parts.entry(name.to_owned()).or_default();
            node.wall += sample.wall;
        }
    }
    let whole = root.wall.max(1.0);
    let scale = (WIDTH - 2.0 * MARGIN) / whole;
    let height = TITLE + HEIGHT * root.depth(scale) as f64 + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"monospace\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    root.draw("all", MARGIN, TITLE, scale, whole, &mut svg);
    svg.push_str("</svg>\n");
    svg
}

/// What runs is shown whole, down to where the program's own code begins.
fn on_cpu<'a, 'b>(functions: &'a [&'b str]) -> &'a [&'b str] {
    let is_own = |function: &&str| !function.starts_with('[') && is_shown(function, false);
    let outermost = functions.iter().rposition(is_own);
    &functions[..outermost.map_or(functions.len(), |outermost| outermost + 1)]
}

impl Node {
    /// Levels that are drawn.
    fn depth(&self, scale: f64) -> usize {
        let parts = self.parts.values().filter(|part| part.wall * scale >= NARROWEST);
        1 + parts.map(|part| part.depth(scale)).max().unwrap_or(0)
    }

    fn draw(&self, name: &str, x: f64, y: f64, scale: f64, whole: f64, svg: &mut String) {
        let width = self.wall * scale;
        if width < NARROWEST {
            return;
        }
        let letters = (width / LETTER) as usize;
        let short = without_path(name);
        let label: String = match short.chars().count() {
            _ if letters < 3 => String::new(),
            length if length <= letters => short.to_owned(),
            _ => short.chars().take(letters - 2).chain("..".chars()).collect(),
        };
        let _ = writeln!(
            svg,
            "<g><title>{} ({:.2} %, {:.2} s)</title><rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{:.1}\" \
             fill=\"{}\" rx=\"1\"/><text x=\"{:.2}\" y=\"{:.1}\">{}</text></g>",
            escaped(name),
            100.0 * self.wall / whole,
            self.wall / 1e9,
            HEIGHT - 1.0,
            colour(name),
            x + 3.0,
            y + 12.0,
            escaped(&label)
        );
        let mut at = x;
        for (name, part) in &self.parts {
            part.draw(name, at, y + HEIGHT, scale, whole, svg);
            at += part.wall * scale;
        }
    }
}

/// A function with its package's name, as code has it, but not the package's path.
fn without_path(name: &str) -> &str {
    let path = name.find(['(', '[']).map_or(name, |end| &name[..end]);
    path.rfind('/').map_or(name, |at| &name[at + 1..])
}

/// The same for the same name: states are blue, the kernel's functions violet, others from red to yellow.
fn colour(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let hash = hasher.finish();
    if name.starts_with("[kernel]") {
        format!("hsl({},35%,78%)", 270 + hash % 30)
    } else if name.starts_with('[') {
        format!("hsl({},60%,75%)", 195 + hash % 40)
    } else {
        format!("hsl({},75%,70%)", 10 + hash % 45)
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // No XML has these.
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{commands::profile::samples::Frames, inspect::Frame};

    fn sample(names: &[&str], state: &'static str, wall: f64) -> Sample {
        let at = |name: &&str| Frames {
            vaddr: 0,
            is_go: true,
            functions: vec![Frame {
                function: (*name).to_owned(),
                file: String::new(),
                line: 0,
            }],
        };
        Sample {
            stack: names.iter().map(at).collect(),
            state,
            reason: None,
            cpu: if state == "on CPU" { wall } else { 0.0 },
            goroutines: 1.0,
            wall,
        }
    }

    #[test]
    fn widths_are_shares_and_text_is_escaped() {
        let samples = [
            sample(&["runtime.gopark", "main.a<b>", "main.main"], "waiting", 3e9),
            sample(&["main.b", "main.main"], "runnable", 1e9),
        ];
        let svg = draw(&samples, "a & b");
        for part in [
            "a &amp; b</text>",
            "<title>all (100.00 %, 4.00 s)</title>",
            "<title>main.main (100.00 %, 4.00 s)</title>",
            "<title>main.a&lt;b&gt; (75.00 %, 3.00 s)</title>",
            "<title>[waiting] (75.00 %, 3.00 s)</title>",
            "<title>[runnable] (25.00 %, 1.00 s)</title>",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert!(!svg.contains("gopark"), "{svg}");
        // The whole is on top, each function below its caller, and the last within the picture.
        let number = |part: &str, key: &str| -> f64 {
            let behind = &svg[svg.find(part).unwrap()..];
            let value = behind.split_once(&format!(" {key}=\"")).unwrap().1;
            value.split_once('"').unwrap().0.parse().unwrap()
        };
        let rows =
            ["<title>all ", "<title>main.main ", "<title>main.a", "<title>[waiting] "].map(|part| number(part, "y"));
        assert!(rows.is_sorted() && rows[0] == TITLE, "{rows:?}");
        assert!(rows[3] + HEIGHT <= number("<svg ", "height"), "{rows:?}");
    }

    #[test]
    fn what_is_on_cpu_is_shown_down_to_the_programs_own_code() {
        let own = ["[kernel] copy.isra.0", "runtime.memmove", "main.work", "runtime.main"];
        let of_runtime = ["[kernel] wait.isra.0", "runtime.futex", "runtime.mcall"];
        assert_eq!(on_cpu(&own), &own[..3]);
        assert_eq!(on_cpu(&of_runtime), of_runtime);
        let svg = draw(&[sample(&own, "on CPU", 1e9), sample(&of_runtime, "on CPU", 1e9)], "");
        for part in [
            "<title>main.work (50.00 %",
            "<title>runtime.memmove (",
            "<title>runtime.mcall (50.00 %",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert!(!svg.contains("runtime.main"), "{svg}");
    }

    #[test]
    fn labels_have_no_paths() {
        for (name, expected) in [
            ("github.com/a/b/v2.(*T[go.shape.int]).F", "v2.(*T[go.shape.int]).F"),
            ("net/http.(*conn).serve", "http.(*conn).serve"),
            ("main.map[a/b]", "main.map[a/b]"),
            ("[kernel] a/b", "[kernel] a/b"),
            ("main.main", "main.main"),
        ] {
            assert_eq!(without_path(name), expected);
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(draw(&[], "").ends_with("</svg>\n"));
    }
}
